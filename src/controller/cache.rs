//! What a watch knows, with the names in each namespace beside it.
//!
//! Whatever happens to one object concerns others of its namespace at most. Looking through all objects for them at every
//! change is work that grows with the square of their number.

use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

/// A store, and the names of its objects by namespace. Clones are the same.
pub struct Cache<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    names: Arc<RwLock<HashMap<String, BTreeSet<String>>>>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), names: self.names.clone() }
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Cache<K> {
    /// An empty one; its writer tells it what the store has got.
    pub fn new(store: Store<K>) -> Self {
        Self { store, names: Arc::default() }
    }

    /// All objects.
    pub fn store(&self) -> &Store<K> {
        &self.store
    }

    /// The object with this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.store.get(&ObjectRef::new(name).within(namespace))
    }

    /// The objects of a namespace for which `wanted` holds, by name.
    pub fn of_namespace(&self, namespace: &str, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let objects = names.get(namespace).into_iter().flatten().filter_map(|name| self.get(namespace, name));
        objects.filter(|object| wanted(object)).collect()
    }

    /// Takes note of an object that the store has got.
    pub fn add(&self, object: &K) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        names.entry(object.namespace().unwrap_or_default()).or_default().insert(object.name_any());
    }

    /// Takes note of an object that the store has lost.
    pub fn remove(&self, object: &K) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let namespace = object.namespace().unwrap_or_default();
        if let Some(of_namespace) = names.get_mut(&namespace) {
            of_namespace.remove(&object.name_any());
            if of_namespace.is_empty() {
                names.remove(&namespace);
            }
        }
    }

    /// Takes note that the store has these objects and no others.
    pub fn replace(&self, objects: &[ObjectRef<K>]) {
        let mut all = HashMap::<String, BTreeSet<String>>::new();
        for object in objects {
            all.entry(object.namespace.clone().unwrap_or_default()).or_default().insert(object.name.clone());
        }
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// The object as the store has it, which needs no memory of its own; as it is, if the store has none.
    pub fn shared(&self, object: K) -> Arc<K> {
        self.store.get(&ObjectRef::from_obj(&object)).unwrap_or_else(|| Arc::new(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;

    fn object(namespace: &str, name: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some(namespace.to_owned());
        object.metadata.name = Some(name.to_owned());
        object
    }

    #[test]
    fn a_namespace_has_its_own_objects_only() {
        let (store, mut writer) = reflector::store();
        let cache = Cache::new(store);
        let names = |namespace: &str| -> Vec<String> {
            cache.of_namespace(namespace, |_: &ConfigMap| true).iter().map(|object| object.name_any()).collect()
        };
        for (namespace, name) in [("a", "two"), ("a", "one"), ("b", "one")] {
            writer.apply_watcher_event(&Event::Apply(object(namespace, name)));
            cache.add(&object(namespace, name));
        }
        assert_eq!(names("a"), ["one", "two"]);
        assert_eq!(cache.of_namespace("a", |object: &ConfigMap| object.name_any() == "two").len(), 1);
        assert!(names("c").is_empty());

        writer.apply_watcher_event(&Event::Delete(object("a", "one")));
        cache.remove(&object("a", "one"));
        assert_eq!(names("a"), ["two"]);
        assert_eq!(names("b"), ["one"]);
        assert!(cache.get("a", "one").is_none() && cache.get("a", "two").is_some());

        let listed = object("c", "three");
        for event in [Event::Init, Event::InitApply(listed.clone()), Event::InitDone] {
            writer.apply_watcher_event(&event);
        }
        cache.replace(&[ObjectRef::from_obj(&listed)]);
        assert!(names("a").is_empty() && names("b").is_empty());
        assert_eq!(names("c"), ["three"]);
    }
}
