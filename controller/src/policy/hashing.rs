//! Tables that a compile asks for each of very many workloads and rules: their hash is a quick one, seeded anew in each process.

use foldhash::fast::RandomState;
use std::collections::{HashMap, HashSet};

/// A table with that hash.
pub type Map<K, V> = HashMap<K, V, RandomState>;
/// A set with that hash.
pub type Set<K> = HashSet<K, RandomState>;
