//! Following one kind of object, in all namespaces or in some.

use crate::telemetry::Metrics;
use async_stream::stream;
use futures::stream::{SelectAll, Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

/// The longest time until an API server that is back is noticed. kube's own can be a minute, with jitter; a Subscription
/// needs several kinds to be followed again, by several processes, before it becomes ready.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The namespaces whose objects are looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(Vec<String>);

impl Scope {
    /// These namespaces; all, if there is none among them. Empty names are left out: an environment variable that is set
    /// to nothing is a list with an empty item.
    pub fn new(namespaces: &[String]) -> Self {
        let mut names: Vec<_> = namespaces.iter().filter(|name| !name.is_empty()).cloned().collect();
        names.sort();
        names.dedup();
        Self(names)
    }

    /// Whether the objects of this namespace are looked after.
    pub fn contains(&self, namespace: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|name| name == namespace)
    }

    /// These namespaces and one more, which is not followed twice if it is among them.
    #[must_use]
    pub fn with(&self, namespace: &str) -> Self {
        if self.contains(namespace) {
            return self.clone();
        }
        Self::new(&[self.0.as_slice(), &[namespace.to_owned()]].concat())
    }

    /// Access to the objects of a kind: one for each namespace, or one for all.
    pub fn apis<K>(&self, client: &Client) -> Vec<Api<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match self.0.as_slice() {
            [] => vec![Api::all(client.clone())],
            names => names.iter().map(|name| Api::namespaced(client.clone(), name)).collect(),
        }
    }
}

/// Follows the objects that `apis` give access to, as if they were one: a first list, then changes, for ever.
///
/// Errors are logged and counted under `kind`, and what failed is tried again with growing pauses; what is known stays
/// in force meanwhile.
pub fn watch<K>(
    apis: Vec<Api<K>>,
    config: &watcher::Config,
    kind: &'static str,
    metrics: &Metrics,
) -> impl Stream<Item = Event<K>> + Send + use<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let streams = apis.into_iter().map(|api| {
        let metrics = metrics.clone();
        let events = watcher(api, config.clone()).backoff(Pauses::default());
        let events = events.filter_map(move |event| {
            let event = event.inspect_err(|error| {
                tracing::warn!(kind, %error, "the API server cannot be followed; what is known stays in force");
                metrics.watch_failed(kind);
            });
            std::future::ready(event.ok())
        });
        events.boxed()
    });
    merge(streams.collect())
}

/// kube's growing pauses between two attempts, but not longer than [`LONGEST_PAUSE`].
#[derive(Default)]
struct Pauses(DefaultBackoff);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(LONGEST_PAUSE))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// One sequence of events out of several: the first lists as one list, later lists as the changes that they amount to.
///
/// With several streams, a copy of every object is kept, because a list does not say what is no longer there.
fn merge<K, S>(mut streams: Vec<S>) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource + Clone + Send + Sync + 'static,
    S: Stream<Item = Event<K>> + Send + Unpin,
{
    stream! {
        if let [only] = streams.as_mut_slice() {
            while let Some(event) = only.next().await {
                yield event;
            }
            return;
        }
        let mut known: Vec<BTreeMap<String, K>> = streams.iter().map(|_| BTreeMap::new()).collect();
        yield Event::Init;
        for (stream, known) in streams.iter_mut().zip(&mut known) {
            while let Some(event) = stream.next().await {
                match event {
                    // Also a list that broke off and begins anew.
                    Event::Init => known.clear(),
                    Event::InitApply(object) | Event::Apply(object) => drop(known.insert(object.name_any(), object)),
                    Event::Delete(object) => drop(known.remove(&object.name_any())),
                    Event::InitDone => break,
                }
            }
            for object in known.values() {
                yield Event::InitApply(object.clone());
            }
        }
        yield Event::InitDone;
        let mut all = SelectAll::new();
        for (index, stream) in streams.into_iter().enumerate() {
            all.push(stream.map(move |event| (index, event)));
        }
        let mut listed: Vec<BTreeMap<String, K>> = known.iter().map(|_| BTreeMap::new()).collect();
        while let Some((index, event)) = all.next().await {
            let (known, listed) = (&mut known[index], &mut listed[index]);
            match event {
                Event::Init => listed.clear(),
                Event::InitApply(object) => {
                    listed.insert(object.name_any(), object.clone());
                    yield Event::Apply(object);
                }
                Event::InitDone => {
                    let before = std::mem::replace(known, std::mem::take(listed));
                    for (name, object) in before {
                        if !known.contains_key(&name) {
                            yield Event::Delete(object);
                        }
                    }
                }
                Event::Apply(object) => {
                    known.insert(object.name_any(), object.clone());
                    yield Event::Apply(object);
                }
                Event::Delete(object) => {
                    known.remove(&object.name_any());
                    yield Event::Delete(object);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::channel::mpsc::{UnboundedReceiver, unbounded};
    use futures::executor::block_on;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn named(name: &str) -> ConfigMap {
        let metadata = kube::api::ObjectMeta { name: Some(name.to_owned()), ..Default::default() };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    /// `I` a list begins, `i:NAME` is in it, `D` it ends, `a:NAME` and `d:NAME` changes.
    fn events(script: &str) -> UnboundedReceiver<Event<ConfigMap>> {
        let (sender, receiver) = unbounded();
        for word in script.split_whitespace() {
            let event = match word.split_once(':') {
                None if word == "I" => Event::Init,
                None => Event::InitDone,
                Some(("i", name)) => Event::InitApply(named(name)),
                Some(("a", name)) => Event::Apply(named(name)),
                Some((_, name)) => Event::Delete(named(name)),
            };
            sender.unbounded_send(event).unwrap();
        }
        receiver
    }

    fn merged(scripts: &[&str]) -> String {
        let streams = scripts.iter().map(|script| events(script)).collect();
        let words: Vec<_> = block_on(merge(streams).collect::<Vec<_>>())
            .into_iter()
            .map(|event| match event {
                Event::Init => "I".to_owned(),
                Event::InitDone => "D".to_owned(),
                Event::InitApply(object) => format!("i:{}", object.name_any()),
                Event::Apply(object) => format!("a:{}", object.name_any()),
                Event::Delete(object) => format!("d:{}", object.name_any()),
            })
            .collect();
        words.join(" ")
    }

    #[test]
    fn one_stream_is_passed_on_as_it_is() {
        let script = "I i:x D a:y d:x I i:y D";
        assert_eq!(merged(&[script]), script);
    }

    #[test]
    fn the_first_lists_are_one_list() {
        assert_eq!(merged(&["I i:x D a:y", "I i:z D"]), "I i:x i:z D a:y");
        assert_eq!(merged(&["I D", "I D"]), "I D");
        assert_eq!(merged(&["I i:x I i:y D", "I D"]), "I i:y D");
    }

    #[test]
    fn a_later_list_is_passed_on_as_changes() {
        assert_eq!(merged(&["I i:x i:y D I i:y D", "I D"]), "I i:x i:y D a:y d:x");
        assert_eq!(merged(&["I i:x D d:x I D", "I D"]), "I i:x D d:x");
    }

    #[test]
    fn pauses_grow_and_stay_short() {
        let mut pauses = Pauses::default();
        let grown: Vec<_> = pauses.by_ref().take(12).collect();
        assert!(grown[0] < Duration::from_secs(2) && grown[11] == LONGEST_PAUSE, "{grown:?}");
        pauses.reset();
        assert!(pauses.next().unwrap() < Duration::from_secs(2));
    }

    #[test]
    fn a_namespace_is_added_once() {
        let scope = |names: &[&str]| Scope(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(scope(&["b"]).with("a"), scope(&["a", "b"]));
        assert_eq!(scope(&["a", "b"]).with("a"), scope(&["a", "b"]));
        assert_eq!(scope(&[]).with("a"), scope(&[]), "all namespaces stay all");
    }

    #[test]
    fn empty_names_mean_all_namespaces() {
        assert_eq!(Scope::new(&[String::new()]), Scope::new(&[]));
        assert_eq!(Scope::new(&["b".into(), "a".into(), "b".into()]), Scope(vec!["a".into(), "b".into()]));
    }
}
