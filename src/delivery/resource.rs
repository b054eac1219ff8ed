//! One attempt to have an object of the cluster made for an event. The controller makes it: the ingress has no right to, and
//! says no more than which trigger and which event.

use super::cloud_event::Attributes;
use super::request::Unsendable;
use super::retry::{self, Outcome};
use super::sender::{Answer, Sender, in_time};
use crate::api::{ResourceAnswer, ResourceEvent};
use crate::plugin::ObjectIdentity;
use crate::spool::{DeliveryEvent, PendingDelivery};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use std::time::SystemTime;

impl Sender {
    /// Has the object made; gives what is made in words, what came of it, and the most attempts.
    ///
    /// # Errors
    /// Why it is not made.
    pub(super) async fn make(
        &self,
        delivery: &PendingDelivery,
        event: &DeliveryEvent,
        attempt: u32,
    ) -> Result<(String, Answer, u32), Unsendable> {
        let (target, plugin) = self.known(delivery)?;
        let trigger = &target.trigger;
        let outgoing = target.outgoing.as_ref().as_ref().map_err(|problem| Unsendable::Never(problem.clone()))?;
        let template = outgoing.object().ok_or("the runner is none of the cluster")?;
        let (namespace, id) = (trigger.namespace.as_ref(), event.event.id);
        let identity = ObjectIdentity { namespace, trigger: &trigger.name, uid: trigger.uid, event: id };
        let shown = format!("{} {} {}", template.api_version(), template.kind(), identity.name());
        let attributes = Attributes {
            id,
            namespace,
            subscription: &event.request.name,
            plugin: &plugin,
            event: &event.event.name,
            accepted_at: event.request.received_at,
            trigger: &trigger.name,
            workflow: &event.trigger.workflow,
            attempt,
        };
        let question = ResourceEvent {
            namespace: namespace.to_owned(),
            trigger: trigger.name.clone(),
            trigger_uid: trigger.uid,
            id,
            event: event.event.name.clone(),
            item: event.event.item,
            type_: attributes.type_(),
            time: attributes.time(),
            subscription: event.request.name.clone(),
            plugin: plugin.to_string(),
            workflow: event.trigger.workflow.clone(),
            attempt,
            variables: event.event.variables.clone(),
        };
        let body = serde_json::to_vec(&question).map_err(|error| error.to_string())?;
        let request = Request::post(ResourceEvent::PATH).body(Bytes::from(body)).map_err(|error| error.to_string())?;
        let max_attempts = trigger.spec.delivery.max_attempts;
        let asked = tokio::time::timeout(in_time(trigger), self.controller.call(request)).await;
        let answer = match asked {
            Ok(Ok(response)) => read(response, max_attempts)?,
            Ok(Err(unreachable)) => Answer::none(unreachable.to_string()),
            Err(_) => Answer::none("no answer in time".to_owned()),
        };
        Ok((shown, answer, max_attempts))
    }
}

/// What the controller's answer means.
fn read(response: Response<Bytes>, max_attempts: u32) -> Result<Answer, Unsendable> {
    let words = || String::from_utf8_lossy(response.body()).trim().chars().take(300).collect::<String>();
    match response.status() {
        StatusCode::OK => {}
        StatusCode::PAYLOAD_TOO_LARGE => {
            return Err(Unsendable::Never(format!("the event is too large to make an object of it: {}", words())));
        }
        status => return Ok(Answer::none(format!("the controller answered {status}: {}", words()))),
    }
    let answered = |status, retry_after, error: Option<String>, text| {
        // An object says nothing that a sender could be told.
        let reply = error.is_none().then_some(Err("is an object of the cluster"));
        Ok(Answer { outcome: Outcome::Answered { status, retry_after }, error, text: Some(text), reply })
    };
    match serde_json::from_slice(response.body()) {
        Ok(ResourceAnswer::Made { before: false }) => answered(201, None, None, "it was made".to_owned()),
        Ok(ResourceAnswer::Made { before: true }) => {
            answered(200, None, None, "it was there already, made for the same event".to_owned())
        }
        Ok(ResourceAnswer::Refused { status, message, retry_after }) => {
            let wait = retry_after.and_then(|asked| retry::retry_after(&asked, SystemTime::now()));
            let text: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            answered(status, wait, Some(format!("the API server: {status}: {text}")), text)
        }
        Ok(ResourceAnswer::NotYet { reason }) => Err(Unsendable::NotMade { reason, max_attempts }),
        Ok(ResourceAnswer::Never { reason }) => Err(Unsendable::Never(reason)),
        Err(_) => Ok(Answer::none("the controller's answer cannot be read; it may be of another version".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Result<Answer, Unsendable> {
        read(Response::builder().status(status).body(Bytes::from(body.to_owned())).unwrap(), 3)
    }

    #[test]
    fn what_the_controller_says_is_an_outcome() {
        let outcome = |body: &str| answer(200, body).map(|answer| answer.outcome);
        let answered = |status| Ok(Outcome::Answered { status, retry_after: None });
        assert_eq!(outcome(r#"{"outcome": "made", "before": false}"#), answered(201));
        assert_eq!(outcome(r#"{"outcome": "made", "before": true}"#), answered(200));
        let refused = answer(200, r#"{"outcome": "refused", "status": 403, "message": "jobs is\nforbidden"}"#).unwrap();
        assert_eq!(Ok(refused.outcome), answered(403));
        assert_eq!(refused.error.unwrap(), "the API server: 403: jobs is forbidden");
        let busy = outcome(r#"{"outcome": "refused", "status": 429, "message": "", "retryAfter": "7"}"#);
        let wait = Some(std::time::Duration::from_secs(7));
        assert_eq!(busy, Ok(Outcome::Answered { status: 429, retry_after: wait }));
        let waits = Unsendable::NotMade { reason: "no ServiceAccount".into(), max_attempts: 3 };
        assert_eq!(outcome(r#"{"outcome": "notYet", "reason": "no ServiceAccount"}"#), Err(waits));
        assert_eq!(outcome(r#"{"outcome": "never", "reason": "off"}"#), Err(Unsendable::Never("off".into())));
    }

    #[test]
    fn what_is_no_answer_is_repeated_and_what_is_too_large_is_not() {
        for (status, body) in [(503, "the API server: gone"), (401, "the key"), (404, ""), (200, "{}"), (200, "x")] {
            let answer = answer(status, body).unwrap();
            assert_eq!(answer.outcome, Outcome::NoAnswer, "{status} {body}");
            assert!(answer.error.is_some());
        }
        assert!(matches!(answer(413, "at most 1 bytes"), Err(Unsendable::Never(_))));
    }
}
