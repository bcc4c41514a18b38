//! `tidegate replay` on captures that are made here, and on shared ones with the answers of Zeek and tshark.

mod build;
mod connections;
mod engines;
mod files;
mod frames;
mod policies;
mod reading;
mod run;
mod scenes;
mod shared;
mod tshark;
