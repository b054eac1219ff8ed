//! A map for one writer and many readers that never wait.
//!
//! Readers must not wait for a writer: those of the accept path run at a higher priority than those of the delivery, so
//! with a lock a preempted reader of the one could hold up the other. A single immutable map would have to be copied as
//! a whole for each change. So the map is split into 256 immutable ones: with 10,000 entries a change copies about 40.

use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

const SHARDS: usize = 256;

/// See the module's documentation.
pub(super) struct Shards<K, V> {
    shards: Box<[ArcSwap<HashMap<K, V>>]>,
    hasher: RandomState,
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    pub fn new() -> Self {
        let shards = (0..SHARDS).map(|_| ArcSwap::from_pointee(HashMap::new())).collect();
        Self { shards, hasher: RandomState::new() }
    }

    pub fn get(&self, key: &K) -> Option<V> {
        self.shard(key).load().get(key).cloned()
    }

    /// Sets a value. There must be one writer at a time, or changes are lost.
    pub fn insert(&self, key: K, value: V) {
        let shard = self.shard(&key);
        let mut copy = HashMap::clone(&shard.load());
        copy.insert(key, value);
        shard.store(Arc::new(copy));
    }

    /// Removes a value. There must be one writer at a time, or changes are lost.
    pub fn remove(&self, key: &K) {
        let shard = self.shard(key);
        let current = shard.load();
        if current.contains_key(key) {
            let mut copy = HashMap::clone(&current);
            copy.remove(key);
            shard.store(Arc::new(copy));
        }
    }

    /// Calls `each` with every entry; entries that change meanwhile are seen as they were or as they are.
    pub fn for_each(&self, mut each: impl FnMut(&K, &V)) {
        for shard in &self.shards {
            shard.load().iter().for_each(|(key, value)| each(key, value));
        }
    }

    fn shard(&self, key: &K) -> &ArcSwap<HashMap<K, V>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }
}
