//! The cap on Subscriptions of one plugin in one workspace.
//!
//! Who holds a slot stands in a ConfigMap for each plugin and workspace, written with the version that was read: two
//! acceptances at once cannot both take the last slot, whatever a cache says and however many controllers run.

use super::Failure;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

/// A Subscription that waits for a slot. The fixed order is that of the fields: creation time, then UID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    /// Creation time of the Subscription, in seconds since the Unix epoch.
    pub created: i64,
    /// UID of the Subscription.
    pub uid: Uuid,
}

/// What comes of asking for a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The Subscription holds a slot already.
    Held,
    /// It may take one now.
    Take,
    /// All slots are taken, or the free ones belong to others that have waited longer.
    Full,
}

/// Decides whether `me` gets a slot.
///
/// `holders` are the UIDs that hold one; `waiting` are all that want one, `me` included; holders among them are skipped. Lowering `cap` evicts nobody.
pub fn decide<'a>(holders: impl Iterator<Item = &'a Uuid>, waiting: &[Waiting], cap: u32, me: Uuid) -> Decision {
    let holders: HashSet<&Uuid> = holders.collect();
    if holders.contains(&me) {
        return Decision::Held;
    }
    let free = (cap as usize).saturating_sub(holders.len());
    let mut queue: Vec<&Waiting> = waiting.iter().filter(|waiting| !holders.contains(&waiting.uid)).collect();
    queue.sort();
    match queue.iter().position(|waiting| waiting.uid == me) {
        Some(position) if position < free => Decision::Take,
        _ => Decision::Full,
    }
}

/// Most names in a message.
const MOST_NAMES: usize = 20;

/// Says who holds the slots, in the words of the condition, which are those of admission too.
pub fn taken<'a>(cap: u32, plugin: &str, namespace: &str, holders: impl Iterator<Item = &'a str>) -> String {
    let holders: Vec<&str> = holders.collect();
    format!(
        "{} of {cap} Subscriptions of the plugin \"{plugin}\" in the namespace {namespace} are taken ({})",
        holders.len(),
        list(&holders)
    )
}

/// Names in a sentence, the first twenty of them.
pub fn list(names: &[&str]) -> String {
    let shown = names[..names.len().min(MOST_NAMES)].join(", ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Within one process, acceptances of one plugin and workspace take turns, so that eleven at once do not run into eleven
/// conflicts. Those of others need not wait, except by chance: there is a fixed number of locks.
pub struct Turns([Mutex<()>; 64]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Turns {
    /// Waits until it is somebody's turn, which is over when what is given is dropped.
    pub async fn wait(&self, workspace: &str, plugin: &str) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        (workspace, plugin).hash(&mut hasher);
        self.0[hasher.finish() as usize % self.0.len()].lock().await
    }
}

/// The holders of the slots of one plugin and workspace.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// UID to name of the Subscription.
    pub holders: BTreeMap<Uuid, String>,
    resource_version: Option<String>,
}

/// Reads and writes ledgers.
#[derive(Clone)]
pub struct Ledgers {
    api: Api<ConfigMap>,
    namespace: String,
}

impl Ledgers {
    /// The ledgers in `namespace`.
    pub fn new(client: kube::Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned() }
    }

    /// The ledger of this plugin and workspace, empty if there is none.
    ///
    /// # Errors
    /// The API server failed.
    pub async fn get(&self, workspace: &str, plugin: &str) -> Result<Ledger, Failure> {
        let Some(map) = self.api.get_opt(&name(workspace, plugin)).await? else {
            return Ok(Ledger::default());
        };
        let holders = map.data.unwrap_or_default();
        Ok(Ledger {
            holders: holders.into_iter().filter_map(|(uid, name)| Some((uid.parse().ok()?, name))).collect(),
            resource_version: map.metadata.resource_version,
        })
    }

    /// Writes a changed ledger.
    ///
    /// # Errors
    /// [`Failure::Conflict`] if somebody else has written it since it was read; the API server failed.
    pub async fn put(&self, workspace: &str, plugin: &str, ledger: &Ledger) -> Result<(), Failure> {
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name(workspace, plugin)),
                namespace: Some(self.namespace.clone()),
                resource_version: ledger.resource_version.clone(),
                ..ObjectMeta::default()
            },
            data: Some(ledger.holders.iter().map(|(uid, name)| (uid.to_string(), name.clone())).collect()),
            ..ConfigMap::default()
        };
        let written = match &ledger.resource_version {
            None => self.api.create(&PostParams::default(), &map).await,
            Some(_) => self.api.replace(&name(workspace, plugin), &PostParams::default(), &map).await,
        };
        match written {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                Err(Failure::Conflict(format!("slots of {plugin} in {workspace}")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a slot back; that it is free already is success.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn release(&self, workspace: &str, plugin: &str, uid: Uuid) -> Result<(), Failure> {
        let mut ledger = self.get(workspace, plugin).await?;
        if ledger.holders.remove(&uid).is_none() {
            return Ok(());
        }
        if !ledger.holders.is_empty() {
            return self.put(workspace, plugin, &ledger).await;
        }
        let unchanged = Preconditions { resource_version: ledger.resource_version, uid: None };
        let params = DeleteParams { preconditions: Some(unchanged), ..DeleteParams::default() };
        super::ignore_not_found(self.api.delete(&name(workspace, plugin), &params).await)
    }
}

/// A namespace has no dot in its name, so the parts cannot be mixed up.
fn name(workspace: &str, plugin: &str) -> String {
    format!("slots.{workspace}.{plugin}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn queue(entries: &[(i64, u128)]) -> Vec<Waiting> {
        entries.iter().map(|(created, n)| Waiting { created: *created, uid: uid(*n) }).collect()
    }

    #[test]
    fn eleven_at_once_leave_the_youngest_out() {
        let waiting = queue(&(1..=11).map(|n| (100, n)).collect::<Vec<_>>());
        let decisions: Vec<_> = (1..=11).map(|n| decide([].iter(), &waiting, 10, uid(n))).collect();
        assert_eq!(decisions.iter().filter(|d| **d == Decision::Take).count(), 10);
        assert_eq!(decisions[10], Decision::Full);
    }

    #[test]
    fn those_that_were_accepted_while_others_waited_do_not_count_twice() {
        let waiting = queue(&(1..=11).map(|n| (100, n)).collect::<Vec<_>>());
        let mut holders = Vec::new();
        for n in (1..=11).rev() {
            if decide(holders.iter(), &waiting, 10, uid(n)) == Decision::Take {
                holders.push(uid(n));
            }
        }
        assert_eq!(holders.len(), 10);
    }

    #[test]
    fn a_holder_keeps_its_slot_when_the_cap_is_lowered() {
        let holders = [uid(1), uid(2), uid(3)];
        assert_eq!(decide(holders.iter(), &[], 1, uid(3)), Decision::Held);
        assert_eq!(decide(holders.iter(), &queue(&[(1, 9)]), 1, uid(9)), Decision::Full);
    }

    #[test]
    fn an_older_one_that_waits_goes_first() {
        let holders = [uid(1)];
        let waiting = queue(&[(20, 5), (10, 6)]);
        assert_eq!(decide(holders.iter(), &waiting, 2, uid(6)), Decision::Take);
        assert_eq!(decide(holders.iter(), &waiting, 2, uid(5)), Decision::Full);
    }

    #[test]
    fn a_younger_one_never_displaces_a_holder() {
        let holders: Vec<_> = (1..=10).map(uid).collect();
        assert_eq!(decide(holders.iter(), &queue(&[(0, 11)]), 10, uid(11)), Decision::Full);
    }
}
