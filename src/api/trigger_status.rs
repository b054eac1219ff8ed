//! What Bellhop says of a WorkflowTrigger, and what can be asked of one by annotations.

use super::{Condition, Mode, WorkflowTrigger};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Annotation of a trigger in mode Draft: until when it captures events, in RFC 3339.
pub const LISTEN_ANNOTATION: &str = "bellhop.dev/listen-until";
/// Annotation of a trigger that was paused because its runner answered 410: another value than before lets it fire again.
pub const RESUME_ANNOTATION: &str = "bellhop.dev/resume";
/// Characters of it that count.
const RESUME_LENGTH: usize = 64;
/// The longest time that a draft listens, from the moment at which the annotation is first seen.
pub const LONGEST_LISTENING: SignedDuration = SignedDuration::from_hours(1);

/// What Bellhop says of a WorkflowTrigger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowTriggerStatus {
    /// The generation that the conditions are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: whether the trigger will fire, and if not, why. `RunnerAway`: that its runner does not answer; absent if it
    /// does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// When an event last matched. Written at most once a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fired: Option<Time>,
    /// How many events there were. Written at most once a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// Until when a draft listens, because the annotation `bellhop.dev/listen-until` asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listening: Option<Listening>,
    /// That the runner has answered 410 Gone: the trigger is paused until its spec or the annotation
    /// `bellhop.dev/resume` is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_gone: Option<RunnerGone>,
    /// That the runner does not answer, and is left alone for a while. Written at most once a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_away: Option<RunnerAway>,
}

/// How many events a trigger was held against. Approximate: what an ingress has not reported when it is killed is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// Events that matched and became deliveries.
    pub fired: i64,
    /// Events of this kind that did not match, by parameters or by the filter.
    pub filtered: i64,
    /// Deliveries that became dead letters after an attempt.
    pub failed: i64,
}

/// That a draft listens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listening {
    /// The annotation's value.
    pub requested: String,
    /// When it ends: the time that was asked for, or an hour after that was first seen.
    pub until: Time,
}

impl Listening {
    /// What a trigger's annotation asks for at `now`; `known` is what was made of it before. `None` if the trigger is not
    /// a draft, or has no annotation that is a time. The end may be past.
    pub fn of(trigger: &WorkflowTrigger, known: Option<&Listening>, now: Timestamp) -> Option<Self> {
        if trigger.spec.mode != Mode::Draft {
            return None;
        }
        let requested = trigger.metadata.annotations.as_ref()?.get(LISTEN_ANNOTATION)?;
        if let Some(known) = known.filter(|known| known.requested == *requested) {
            return Some(known.clone());
        }
        let asked: Timestamp = requested.parse().ok()?;
        let until = asked.min(now.checked_add(LONGEST_LISTENING).unwrap_or(now));
        // The API has seconds.
        let until = Timestamp::from_second(until.as_second()).unwrap_or(until);
        Some(Self { requested: requested.clone(), until: Time(until) })
    }
}

/// That a runner does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunnerAway {
    /// Since when, as far as a replica of the ingress knows.
    pub since: Time,
}

/// For which state of a trigger its runner was gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunnerGone {
    /// The trigger's generation.
    pub generation: i64,
    /// The value of the annotation `bellhop.dev/resume`; its first 64 characters count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
}

impl RunnerGone {
    /// The state that a trigger is in.
    pub fn state_of(trigger: &WorkflowTrigger) -> Self {
        let annotations = trigger.metadata.annotations.as_ref();
        Self {
            generation: trigger.metadata.generation.unwrap_or_default(),
            resume: annotations
                .and_then(|annotations| annotations.get(RESUME_ANNOTATION))
                .map(|value| value.chars().take(RESUME_LENGTH).collect()),
        }
    }

    /// Whether the trigger is paused: nothing has changed since its runner was gone.
    pub fn pauses(trigger: &WorkflowTrigger) -> bool {
        let gone = trigger.status.as_ref().and_then(|status| status.runner_gone.as_ref());
        gone.is_some_and(|gone| *gone == Self::state_of(trigger))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn trigger(mode: &str, annotations: Value, status: Value) -> WorkflowTrigger {
        serde_json::from_value(json!({
            "apiVersion": "bellhop.dev/v1alpha1", "kind": "WorkflowTrigger",
            "metadata": {"name": "t", "generation": 3, "annotations": annotations},
            "spec": {
                "subscriptionRef": {"name": "s"}, "event": "push", "workflow": "w", "mode": mode,
                "runner": {"url": "http://runner/"},
            },
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_draft_listens_for_an_hour_at_most() {
        let now: Timestamp = "2026-01-01T10:00:00Z".parse().unwrap();
        let until = |mode: &str, value: &str, known: Option<&Listening>| {
            Listening::of(&trigger(mode, json!({LISTEN_ANNOTATION: value}), json!({})), known, now)
        };
        let at = |listening: Option<Listening>| listening.map(|listening| listening.until.0.to_string());
        assert_eq!(at(until("Draft", "2026-01-01T10:05:00.7Z", None)).unwrap(), "2026-01-01T10:05:00Z");
        assert_eq!(at(until("Draft", "2026-01-01T11:10:00+01:00", None)).unwrap(), "2026-01-01T10:10:00Z");
        assert_eq!(at(until("Draft", "2030-01-01T00:00:00Z", None)).unwrap(), "2026-01-01T11:00:00Z");
        assert_eq!(at(until("Draft", "2020-01-01T00:00:00Z", None)).unwrap(), "2020-01-01T00:00:00Z", "it is over");
        for (mode, value) in [("Published", "2026-01-01T10:05:00Z"), ("Draft", "tomorrow"), ("Draft", "")] {
            assert_eq!(until(mode, value, None), None, "{mode} {value}");
        }
        // Looking again later does not make it longer; asking anew does.
        let known = Listening {
            requested: "2030-01-01T00:00:00Z".into(),
            until: Time("2026-01-01T10:20:00Z".parse().unwrap()),
        };
        assert_eq!(until("Draft", "2030-01-01T00:00:00Z", Some(&known)), Some(known.clone()));
        assert_eq!(at(until("Draft", "2030-01-01T00:00:01Z", Some(&known))).unwrap(), "2026-01-01T11:00:00Z");
    }

    #[test]
    fn a_pause_ends_with_the_state_that_it_was_made_for() {
        let gone = |generation: i64| json!({"runnerGone": {"generation": generation}});
        assert!(RunnerGone::pauses(&trigger("Published", json!({}), gone(3))));
        assert!(!RunnerGone::pauses(&trigger("Published", json!({}), gone(2))));
        assert!(!RunnerGone::pauses(&trigger("Published", json!({RESUME_ANNOTATION: "1"}), gone(3))));
        assert!(!RunnerGone::pauses(&trigger("Published", json!({}), json!({}))));
    }
}
