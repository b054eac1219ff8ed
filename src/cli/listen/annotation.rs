//! The annotation by which a draft listens.

use crate::api::LISTEN_ANNOTATION;
use crate::cli::client::{Cluster, told};
use crate::cli::output::clean;
use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::watcher::watch_object;
use serde_json::{Value, json};
use std::pin::pin;
use std::time::Duration;

/// How long to wait for Bellhop to see the annotation, before that is mentioned.
const PATIENCE: Duration = Duration::from_secs(10);
/// Attempts to take the annotation away, when somebody else writes the trigger at the same time.
const ATTEMPTS: usize = 5;

/// A draft that listens because of us.
pub struct Listening<'a> {
    cluster: &'a Cluster,
    trigger: String,
    /// The value that we have set.
    value: String,
    /// What somebody else had set, if that is still to come.
    before: Option<String>,
}

impl<'a> Listening<'a> {
    /// Sets the annotation. If somebody else listens longer, it stays as it is.
    ///
    /// # Errors
    /// The API server refused.
    pub async fn begin(cluster: &'a Cluster, trigger: &str, until: Timestamp) -> anyhow::Result<Listening<'a>> {
        let object = cluster.get("WorkflowTrigger", trigger).await?;
        let before = object.annotations().get(LISTEN_ANNOTATION).cloned();
        let ours = format!("{until:.0}");
        let value = match &before {
            Some(before) if is_later(before, &ours) => before.clone(),
            _ => ours,
        };
        if before.as_ref() != Some(&value) {
            write(cluster, trigger, &json!({"metadata": {"annotations": {LISTEN_ANNOTATION: value}}}))
                .await
                .map_err(told)?;
        }
        Ok(Listening { cluster, trigger: trigger.to_owned(), value, before })
    }

    /// Waits until Bellhop has seen the annotation, and says so on standard error.
    pub async fn confirmed(&self) {
        let objects = watch_object(self.cluster.objects("WorkflowTrigger"), &self.trigger);
        let mut objects = pin!(objects);
        let seen = async {
            while let Some(object) = objects.next().await {
                if let Ok(Some(object)) = object
                    && object.data["status"]["listening"]["requested"] == self.value.as_str()
                {
                    return object.data["status"]["listening"]["until"].as_str().map(str::to_owned);
                }
            }
            None
        };
        match tokio::time::timeout(PATIENCE, seen).await.ok().flatten() {
            Some(until) => eprintln!("Listening to {} until {}; Ctrl-C ends it.", self.trigger, clean(&until)),
            None => eprintln!("Bellhop has not yet seen that {} listens; is its controller running?", self.trigger),
        }
    }

    /// Takes the annotation away, unless somebody else has set another one meanwhile.
    ///
    /// # Errors
    /// The API server refused; the message says what to do by hand.
    pub async fn end(&self) -> anyhow::Result<()> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let object = match self.cluster.objects("WorkflowTrigger").get_opt(&self.trigger).await {
                Ok(Some(object)) => object,
                Ok(None) => return Ok(()),
                Err(error) => {
                    last = Some(error);
                    continue;
                }
            };
            let Some(patch) = self.taken_away(&object, Timestamp::now()) else { return Ok(()) };
            match write(self.cluster, &self.trigger, &patch).await {
                Ok(_) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        let Some(error) = last else { return Ok(()) };
        let by_hand = format!(
            "the draft listens until {}; to end that: kubectl annotate workflowtrigger.bellhop.dev {} -n {} {LISTEN_ANNOTATION}-",
            self.value, self.trigger, self.cluster.namespace
        );
        Err(told(error).context(by_hand))
    }

    /// The change that takes our annotation away; nothing, if it is not ours any more. The version makes the API server
    /// refuse it if the trigger has changed since it was read.
    fn taken_away(&self, object: &DynamicObject, now: Timestamp) -> Option<Value> {
        if object.annotations().get(LISTEN_ANNOTATION) != Some(&self.value) {
            return None;
        }
        // Whoever listened before us goes on listening.
        let before = self.before.as_ref().filter(|before| before.parse::<Timestamp>().is_ok_and(|before| before > now));
        if before == Some(&self.value) {
            return None;
        }
        Some(
            json!({"metadata": {"resourceVersion": object.resource_version(), "annotations": {LISTEN_ANNOTATION: before}}}),
        )
    }
}

fn is_later(one: &str, other: &str) -> bool {
    matches!((one.parse::<Timestamp>(), other.parse::<Timestamp>()), (Ok(one), Ok(other)) if one > other)
}

async fn write(cluster: &Cluster, trigger: &str, patch: &Value) -> kube::Result<DynamicObject> {
    cluster.objects("WorkflowTrigger").patch(trigger, &PatchParams::default(), &Patch::Merge(patch)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "2026-01-01T10:05:00Z";

    fn taken_away(before: Option<&str>, now_set: Option<&str>) -> Option<Value> {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("nobody is there"))
        });
        let client = kube::Client::new(service, "default");
        let cluster = Cluster { client, namespace: "team-a".to_owned() };
        let listening = Listening {
            cluster: &cluster,
            trigger: "review".to_owned(),
            value: OURS.to_owned(),
            before: before.map(str::to_owned),
        };
        let annotations = now_set.map(|value| json!({LISTEN_ANNOTATION: value}));
        let object = json!({"metadata": {"name": "review", "resourceVersion": "7", "annotations": annotations}});
        let object = serde_json::from_value(object).unwrap();
        listening.taken_away(&object, "2026-01-01T10:01:00Z".parse().unwrap())
    }

    #[tokio::test]
    async fn our_annotation_is_taken_away_and_nobody_elses() {
        let gone = json!({"metadata": {"resourceVersion": "7", "annotations": {LISTEN_ANNOTATION: null}}});
        assert_eq!(taken_away(None, Some(OURS)), Some(gone.clone()));
        assert_eq!(taken_away(Some("2026-01-01T09:00:00Z"), Some(OURS)), Some(gone), "it was over");
        let theirs =
            json!({"metadata": {"resourceVersion": "7", "annotations": {LISTEN_ANNOTATION: "2026-01-01T10:03:00Z"}}});
        assert_eq!(taken_away(Some("2026-01-01T10:03:00Z"), Some(OURS)), Some(theirs));
        assert_eq!(taken_away(Some(OURS), Some(OURS)), None, "somebody else listens longer");
        assert_eq!(taken_away(None, Some("2026-01-01T11:00:00Z")), None, "somebody has begun after us");
        assert_eq!(taken_away(None, None), None);
    }

    #[test]
    fn times_are_compared_as_times() {
        assert!(is_later("2026-01-01T11:00:00+00:00", OURS) && !is_later(OURS, OURS));
        assert!(!is_later("tomorrow", OURS));
    }
}
