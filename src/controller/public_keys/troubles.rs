//! Which keys could not be fetched, and why: what is told in the status of the TriggerPlugins that name them.

use crate::api::reason;
use futures::Stream;
use std::collections::BTreeMap;
use tokio::sync::watch;

/// Why the keys of one place could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::controller) struct Trouble {
    /// What went wrong, and what was answered.
    pub why: String,
    /// Whether keys that were fetched before are published still.
    pub known: bool,
}

/// The troubles of all places, by URL.
pub(in crate::controller) struct Troubles(watch::Sender<BTreeMap<String, Trouble>>);

impl Default for Troubles {
    fn default() -> Self {
        Self(watch::Sender::new(BTreeMap::new()))
    }
}

impl Troubles {
    /// Notes what came of the last call to a place.
    pub fn set(&self, url: &str, trouble: Option<Trouble>) {
        self.0.send_if_modified(|all| {
            let changed = all.get(url) != trouble.as_ref();
            match trouble {
                Some(trouble) => all.insert(url.to_owned(), trouble),
                None => all.remove(url),
            };
            changed
        });
    }

    /// Forgets the places that no plugin names any more.
    pub fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.0.send_if_modified(|all| {
            let before = all.len();
            all.retain(|url, _| wanted(url));
            all.len() < before
        });
    }

    /// Reason and message of the condition of a plugin that names these places; nothing if all were fetched.
    pub fn condition<'a>(&self, urls: impl Iterator<Item = &'a str>) -> Option<(&'static str, String)> {
        let all = self.0.borrow();
        let found: Vec<_> = urls.filter_map(|url| all.get_key_value(url)).collect();
        let unknown = found.iter().any(|(_, trouble)| !trouble.known);
        let lines = found.iter().map(|(url, Trouble { why, known })| {
            let what = match known {
                true => "those that are known stay in force",
                false => "until they are, callbacks that they would prove are answered 503",
            };
            format!("the public keys at {url} cannot be fetched: {why}; {what}, and it is tried again")
        });
        let message = lines.collect::<Vec<_>>().join("; ");
        let reason = if unknown { reason::KEYS_NOT_KNOWN } else { reason::KEYS_NOT_RENEWED };
        (!found.is_empty()).then_some((reason, message))
    }

    /// Something whenever the troubles have changed.
    pub fn changes(&self) -> impl Stream<Item = ()> + Send + use<> {
        futures::stream::unfold(self.0.subscribe(), async |mut all| all.changed().await.ok().map(|()| ((), all)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, StreamExt};

    #[test]
    fn the_worst_trouble_gives_the_reason_and_all_are_named() {
        let troubles = Troubles::default();
        let mut changes = Box::pin(troubles.changes());
        let mut changed = || changes.next().now_or_never().is_some();
        let trouble = |why: &str, known| Some(Trouble { why: why.to_owned(), known });
        let condition = || troubles.condition(["https://a.example/keys", "https://b.example/keys"].into_iter());
        assert!(condition().is_none() && !changed());
        troubles.set("https://a.example/keys", trouble("503 Service Unavailable", true));
        let (reason, message) = condition().unwrap();
        assert_eq!(reason, "KeysNotRenewed");
        assert!(message.contains("https://a.example/keys") && message.contains("503 Service"), "{message}");
        troubles.set("https://b.example/keys", trouble("what is there is no JWK Set", false));
        let (reason, message) = condition().unwrap();
        assert_eq!(reason, "KeysNotKnown");
        assert!(message.contains("stay in force") && message.contains("answered 503"), "{message}");
        assert!(changed());
        // Said again, it is no news; and it is nobody else's.
        troubles.set("https://b.example/keys", trouble("what is there is no JWK Set", false));
        assert!(!changed() && troubles.condition(["https://c.example/keys"].into_iter()).is_none());
        troubles.set("https://b.example/keys", None);
        troubles.retain(|url| url != "https://a.example/keys");
        assert!(condition().is_none() && changed());
    }
}
