//! What the API server's answers mean. No I/O.

use super::account::Answer;
use crate::api::ResourceAnswer;
use crate::plugin::ObjectIdentity;
use http::StatusCode;
use serde_json::Value;

/// Most characters of its words.
const MOST_WORDS: usize = 1000;

/// What the API server says of itself: the message of a Status, or the beginning of whatever it is.
pub fn words(status: Option<&Value>, body: &[u8]) -> String {
    let message = status.and_then(|status| status["message"].as_str());
    let text = message.map_or_else(|| String::from_utf8_lossy(body), Into::into);
    text.trim().chars().take(MOST_WORDS).collect()
}

/// Whether a refusal is over by itself, although its status says nothing of that:
///
/// - a quota is used up, or not counted yet (403, in the words of the admission plugin ResourceQuota);
/// - the API server has met another request that changed the same thing, such as a quota's count (409 `Conflict`).
///
/// What RBAC forbids (403), and what a quota wants to be said (`failed quota`), stays until a person changes it.
pub fn passes(status: StatusCode, answer: Option<&Value>) -> bool {
    let text = |field: &str| answer.and_then(|answer| answer[field].as_str()).unwrap_or_default();
    match status {
        StatusCode::FORBIDDEN => {
            let message = text("message");
            ["is forbidden: exceeded quota: ", "is forbidden: status unknown for quota: "]
                .iter()
                .any(|words| message.contains(words))
        }
        StatusCode::CONFLICT => text("reason") == "Conflict",
        _ => false,
    }
}

/// Whether the object that was in the way is the one of this event: `there` is what the API server said when it was asked
/// for it.
///
/// # Errors
/// What the ingress is told: it is another object, or nobody can see which.
pub fn there(identity: &ObjectIdentity<'_>, there: &Answer) -> Result<bool, ResourceAnswer> {
    let refused = |status: StatusCode, message: String| {
        Err(ResourceAnswer::Refused { status: status.as_u16(), message, retry_after: None })
    };
    let name = identity.name();
    match (there.status(), there.json()) {
        (StatusCode::OK, Some(object)) if identity.made(&object) => Ok(true),
        (StatusCode::OK, _) => refused(
            StatusCode::CONFLICT,
            format!("an object {name} is there that was not made for this event, which its labels would say"),
        ),
        // It has gone meanwhile: the next attempt makes it.
        (StatusCode::NOT_FOUND, _) => {
            refused(StatusCode::SERVICE_UNAVAILABLE, format!("the object {name} was there, and is gone"))
        }
        (status, _) => {
            let why = "an object of this name is there, and whether it was made for this event cannot be seen";
            refused(status, format!("{why} (give the ServiceAccount the verb get): {}", there.words()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{EVENT_LABEL, TRIGGER_UID_LABEL};
    use serde_json::json;
    use uuid::Uuid;

    fn exists() -> Answer {
        Answer::new(409, &json!({"kind": "Status", "reason": "AlreadyExists", "message": "jobs \"x\" already exists"}))
    }

    #[test]
    fn what_is_there_counts_only_if_it_was_made_for_the_event() {
        let (uid, event) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let identity = ObjectIdentity { namespace: "team-a", trigger: "review", uid, event };
        let object = |uid: Uuid, event: Uuid| json!({"metadata": {"labels": {EVENT_LABEL: event.to_string(), TRIGGER_UID_LABEL: uid.to_string()}}});
        let answer = |status: u16, body: Value| there(&identity, &Answer::new(status, &body));
        assert_eq!(answer(200, object(uid, event)), Ok(true));
        for other in [object(uid, uid), object(event, event), json!({"metadata": {}}), json!(null)] {
            match answer(200, other.clone()) {
                Err(ResourceAnswer::Refused { status: 409, message, .. }) => {
                    assert!(message.contains(&identity.name()), "{message}");
                }
                unexpected => panic!("{other}: {unexpected:?}"),
            }
        }
        // What went away is made by the next attempt, which a 503 leads to.
        assert!(matches!(answer(404, json!({})), Err(ResourceAnswer::Refused { status: 503, .. })));
        match answer(403, json!({"message": "jobs is forbidden: User \"x\" cannot get"})) {
            Err(ResourceAnswer::Refused { status: 403, message, .. }) => {
                assert!(message.contains("the verb get") && message.contains("cannot get"), "{message}");
            }
            unexpected => panic!("{unexpected:?}"),
        }
    }

    #[test]
    fn what_passes_by_itself_is_tried_again() {
        let told = |status: u16, body: Value| match Answer::new(status, &body).refused() {
            ResourceAnswer::Refused { status, message, .. } => (status, message),
            other => panic!("{other:?}"),
        };
        // As the API server says it.
        let used_up = "jobs.batch \"a-1\" is forbidden: exceeded quota: few, requested: count/jobs.batch=1, used: \
                       count/jobs.batch=1, limited: count/jobs.batch=1";
        let fresh = "configmaps \"a-1\" is forbidden: status unknown for quota: few, resources: count/configmaps";
        for words in [used_up, fresh] {
            let (status, message) = told(403, json!({"reason": "Forbidden", "message": words}));
            assert_eq!((status, message), (429, format!("not now (403): {words}")));
        }
        let conflict =
            json!({"reason": "Conflict", "message": "Operation cannot be fulfilled on resourcequotas \"few\""});
        assert_eq!(told(409, conflict).0, 429);
        for words in [
            "jobs.batch is forbidden: User \"system:serviceaccount:team-a:exceeded\" cannot create resource \"jobs\"",
            "pods \"a-1\" is forbidden: failed quota: few: must specify limits.cpu",
            "pods \"exceeded-quota\" is forbidden: violates PodSecurity \"restricted:latest\"",
        ] {
            assert_eq!(told(403, json!({"reason": "Forbidden", "message": words})), (403, words.to_owned()));
        }
        for (status, body) in [(409, json!({"reason": "AlreadyExists"})), (422, json!({"reason": "Invalid"}))] {
            assert_eq!(told(status, body).0, status);
        }
    }

    #[test]
    fn refusals_keep_the_words_of_the_api_server() {
        assert!(exists().already_exists());
        // Of a quota, or of whatever else answers 409.
        let conflict = Answer::new(409, &json!({"reason": "Conflict", "message": "try again"}));
        assert!(!conflict.already_exists());
        let refused = Answer::new(422, &json!({"message": "Job.batch is invalid: spec.template: Required"}));
        let refused = refused.refused();
        let ResourceAnswer::Refused { status, message, retry_after } = refused else { panic!("it is refused") };
        assert_eq!((status, retry_after), (422, None));
        assert!(message.contains("Required"), "{message}");
        assert_eq!(words(None, "bad gateway ".repeat(500).as_bytes()).chars().count(), MOST_WORDS);
    }
}
