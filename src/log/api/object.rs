//! Objects that are sent here to have something done.

use super::status::Refusal;
use super::{GROUP, VERSION};
use axum::body::{Body, to_bytes};
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads the spec of an object of this kind, which has `most` bytes at most; nothing at all is one without a spec.
///
/// # Errors
/// 400, 413: it is none; the message says what is wrong.
pub async fn read<T: DeserializeOwned + Default>(body: Body, kind: &str, most: usize) -> Result<T, Refusal> {
    let too_large = |_| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a {kind} has at most {most} bytes"));
    parse(&to_bytes(body, most).await.map_err(too_large)?, kind)
}

fn parse<T: DeserializeOwned + Default>(body: &[u8], kind: &str) -> Result<T, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    let wrong = |why: String| Refusal::bad_request(format!("the body is no {kind}: {why}"));
    let mut object: Value = serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
    let own = format!("{GROUP}/{VERSION}");
    for (field, expected) in [("apiVersion", own.as_str()), ("kind", kind)] {
        match &object[field] {
            Value::Null => {}
            Value::String(found) if found == expected => {}
            _ => return Err(wrong(format!("{field}: expected {expected}"))),
        }
    }
    match object.get_mut("spec").map(Value::take) {
        None if !object.is_object() => Err(wrong("it is no object".to_owned())),
        None | Some(Value::Null) => Ok(T::default()),
        Some(spec) => T::deserialize(spec).map_err(|error| wrong(format!("spec: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::replay::Spec;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_replay_is_read_or_says_what_is_wrong() {
        let parse = |body: &[u8]| parse::<Spec>(body, "Replay");
        assert_eq!(parse(b"").unwrap(), Spec::default());
        assert_eq!(parse(b"{}").unwrap(), Spec::default());
        let all = json!({
            "apiVersion": "log.bellhop.dev/v1alpha1", "kind": "Replay", "metadata": {"name": "0-a"},
            "spec": {"trigger": "review", "deadLetters": true},
        });
        let spec = Spec { trigger: Some("review".to_owned()), dead_letters: Some(true) };
        assert_eq!(parse(all.to_string().as_bytes()).unwrap(), spec);
        assert_eq!(serde_json::to_value(&spec).unwrap(), all["spec"]);
        for (body, word) in [
            (json!({"kind": "Eviction"}), "kind: expected Replay"),
            (json!({"apiVersion": "v1"}), "apiVersion: expected log.bellhop.dev/v1alpha1"),
            (json!({"spec": {"triggers": "x"}}), "unknown field `triggers`, expected `trigger` or `deadLetters`"),
            (json!({"spec": {"deadLetters": "yes"}}), "spec: invalid type"),
            (json!([1]), "the body is no Replay"),
        ] {
            let refusal = parse(body.to_string().as_bytes()).map(drop).unwrap_err();
            assert!(refusal.message().contains(word), "{body}: {}", refusal.message());
        }
    }
}
