//! The loaded programs on a gateway between hosts, a network namespace each: what comes out, and by which way.

mod forward;
mod lab;
mod segments;
