//! What a watch knows, with the names in each namespace beside it, and the name of each UID.
//!
//! Whatever happens to one object concerns others of its namespace at most, and what is reported of one by its UID concerns
//! that one. Looking through all objects for them at every change is work that grows with the square of their number.

use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use uuid::Uuid;

/// A store, and the names of its objects by namespace and by UID. Clones are the same.
pub struct Cache<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    names: Arc<RwLock<Names>>,
}

#[derive(Default)]
struct Names {
    /// Names, with the UIDs.
    of_namespace: HashMap<String, BTreeMap<Arc<str>, Option<Uuid>>>,
    /// Namespace and name.
    of_uid: HashMap<Uuid, (Arc<str>, Arc<str>)>,
}

impl Names {
    fn add(&mut self, namespace: &str, name: &str, uid: Option<&str>) {
        let (name, uid): (Arc<str>, _) = (name.into(), uid.and_then(|uid| uid.parse().ok()));
        let before = self.of_namespace.entry(namespace.to_owned()).or_default().insert(name.clone(), uid);
        if let Some(before) = before.flatten() {
            self.of_uid.remove(&before);
        }
        if let Some(uid) = uid {
            self.of_uid.insert(uid, (namespace.into(), name));
        }
    }

    fn remove(&mut self, namespace: &str, name: &str) {
        let Some(names) = self.of_namespace.get_mut(namespace) else { return };
        if let Some(uid) = names.remove(name).flatten() {
            self.of_uid.remove(&uid);
        }
        if names.is_empty() {
            self.of_namespace.remove(namespace);
        }
    }
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

    /// The object with this UID.
    pub fn by_uid(&self, uid: Uuid) -> Option<Arc<K>> {
        let (namespace, name) = {
            let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
            names.of_uid.get(&uid)?.clone()
        };
        // By this name there may be another one by now.
        let is = |object: &Arc<K>| object.meta().uid.as_deref().and_then(|uid| uid.parse().ok()) == Some(uid);
        self.get(&namespace, &name).filter(is)
    }

    /// The objects of a namespace for which `wanted` holds, by name.
    pub fn of_namespace(&self, namespace: &str, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let names = names.of_namespace.get(namespace).into_iter().flat_map(BTreeMap::keys);
        names.filter_map(|name| self.get(namespace, name)).filter(|object| wanted(object)).collect()
    }

    /// Takes note of an object that the store has got.
    pub fn add(&self, object: &K) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        names.add(&object.namespace().unwrap_or_default(), &object.name_any(), object.meta().uid.as_deref());
    }

    /// Takes note of an object that the store has lost.
    pub fn remove(&self, object: &K) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        names.remove(&object.namespace().unwrap_or_default(), &object.name_any());
    }

    /// Takes note that the store has these objects and no others.
    pub fn replace(&self, objects: &[ObjectRef<K>]) {
        let mut all = Names::default();
        for object in objects {
            let uid = self.store.get(object).and_then(|object| object.meta().uid.clone());
            all.add(object.namespace.as_deref().unwrap_or_default(), &object.name, uid.as_deref());
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

    #[test]
    fn an_object_is_found_by_its_uid_and_not_one_of_its_name() {
        let (store, mut writer) = reflector::store();
        let cache = Cache::<ConfigMap>::new(store);
        let with = |uid: u128| {
            let mut object = object("a", "one");
            object.metadata.uid = Some(Uuid::from_u128(uid).to_string());
            object
        };
        let found = |uid: u128| cache.by_uid(Uuid::from_u128(uid)).and_then(|object| object.metadata.uid.clone());
        writer.apply_watcher_event(&Event::Apply(with(1)));
        cache.add(&with(1));
        assert_eq!((found(1), found(2)), (with(1).metadata.uid, None));

        // It was deleted and made again, which is told as one change.
        writer.apply_watcher_event(&Event::Apply(with(2)));
        cache.add(&with(2));
        assert_eq!((found(1), found(2)), (None, with(2).metadata.uid));
        assert_eq!(cache.names.read().unwrap().of_uid.len(), 1);

        for event in [Event::Init, Event::InitApply(with(3)), Event::InitDone] {
            writer.apply_watcher_event(&event);
        }
        cache.replace(&[ObjectRef::from_obj(&with(3))]);
        assert_eq!((found(1), found(2), found(3)), (None, None, with(3).metadata.uid));
        writer.apply_watcher_event(&Event::Delete(with(3)));
        cache.remove(&with(3));
        assert_eq!(found(3), None);
        let names = cache.names.read().unwrap();
        assert!(names.of_uid.is_empty() && names.of_namespace.is_empty());
    }
}
