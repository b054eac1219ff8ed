//! What a custody remembers, and what older versions have written.

use super::document::parse;
use super::*;
use crate::controller::authorization::testing::ApiServer;
use serde_json::{Value, json};

/// As the first version wrote it, with what follows `account`.
fn recorded(rest: &str) -> String {
    let begin = concat!(
        r#"{"uid":"5a2b1f0e-0c3d-4e7f-9a52-61f4f4b3a001","namespace":"team-a","name":"acme-web","#,
        r#""accepted":{"pluginRef":{"name":"gitea"},"parameters":{"baseURL":"http://127.0.0.1:3000","owner":"acme","#,
        r#""repository":"web"},"authorization":{"apiKey":{"secretRef":{"name":"gitea-token"}}}},"#,
        r#""events":["push","issues"],"token":"Zk3dO2Jr8eY","callbackSecret":"c2VjcmV0","#,
        r#""credentials":{"token":"abc"},"account":"acme-bot""#,
    );
    format!("{begin}{rest}}}")
}

#[test]
fn what_the_first_version_wrote_is_read() {
    let registered = parse(recorded(r#","webhook":{"registered":{"id":"17"}}"#).as_bytes()).unwrap();
    assert_eq!((&*registered.callback_secret, &*registered.token), ("c2VjcmV0", "Zk3dO2Jr8eY"));
    assert_eq!(registered.secret_origin, SecretOrigin::Generated);
    assert_eq!(registered.account.as_deref(), Some("acme-bot"));
    assert_eq!(registered.webhooks.len(), 1);
    assert_eq!((registered.webhooks[0].id(), registered.webhooks[0].event.as_deref()), (Some("17"), None));
    assert!(registered.is_registered(&[None]));

    let creating = parse(recorded(r#","webhook":"creating""#).as_bytes()).unwrap();
    assert_eq!(creating.webhooks.len(), 1);
    assert_eq!(creating.webhooks[0].state, WebhookState::Creating);
    for nothing in [r#","webhook":"none""#, ""] {
        assert_eq!(parse(recorded(nothing).as_bytes()).unwrap().webhooks, []);
    }
    // Each reading gives the same, and what is written again is what is read again.
    let again = parse(&serde_json::to_vec(&registered).unwrap()).unwrap();
    assert_eq!(again, registered);
    let text: Value = serde_json::to_value(&registered).unwrap();
    assert!(text.get("webhook").is_none(), "{text}");
}

pub fn custody(origin: SecretOrigin) -> Custody {
    let mut custody = parse(recorded("").as_bytes()).unwrap();
    custody.secret_origin = origin;
    if origin == SecretOrigin::External {
        custody.callback_secret.clear();
    }
    custody
}

fn registered(id: &str) -> WebhookRecord {
    WebhookRecord { state: WebhookState::Registered { id: id.to_owned() }, ..WebhookRecord::creating(None) }
}

#[test]
fn the_secret_of_a_webhook_that_is_gone_is_accepted_for_a_while_and_another_one_awaited() {
    // It has come in a handshake, or with the answer to the create call.
    for told in [None, Some("first-told-51c7")] {
        let mut custody = custody(SecretOrigin::External);
        assert!(custody.awaits_secret());
        let record = WebhookRecord { secret: told.map(str::to_owned), ..registered("1") };
        let attempt = record.attempt;
        custody.callback_secret = "first-told-51c7".into();
        custody.webhooks.push(record);
        assert!(!custody.awaits_secret());
        custody.lose(attempt, 500);
        assert_eq!((custody.secrets(), custody.awaits_secret()), (vec!["first-told-51c7".to_owned()], true));
        custody.await_secret();
        assert_eq!(custody.capture_secret("second-told-09ab"), Capture::Stored);
        assert_eq!(custody.secrets(), ["second-told-09ab", "first-told-51c7"]);
        assert!(!custody.awaits_secret());
        custody.drop_retired(500);
        assert_eq!(custody.secrets(), ["second-told-09ab"]);
    }
    // The one that has taken its place has the current one.
    let mut replaced = custody(SecretOrigin::External);
    let old = WebhookRecord { secret: Some("first-told-51c7".into()), ..registered("1") };
    let attempt = old.attempt;
    replaced.webhooks.extend([old, registered("2")]);
    replaced.callback_secret = "second-told-09ab".into();
    replaced.lose(attempt, 500);
    assert_eq!(
        (replaced.secrets().as_slice(), &*replaced.callback_secret),
        (["second-told-09ab".to_owned(), "first-told-51c7".to_owned()].as_slice(), "second-told-09ab")
    );
    // What Bellhop has chosen goes to the next webhook, too.
    let mut generated = custody(SecretOrigin::Generated);
    generated.webhooks.push(registered("1"));
    let (attempt, secret) = (generated.webhooks[0].attempt, generated.callback_secret.clone());
    generated.lose(attempt, 500);
    assert_eq!((&generated.callback_secret, generated.awaits_secret()), (&secret, false));
}

#[test]
fn the_secret_of_each_webhook_that_is_made_is_awaited() {
    let told = |id: &str, secret: &str| WebhookRecord { secret: Some(secret.to_owned()), ..registered(id) };
    // One for each event: the second is made.
    let mut each = custody(SecretOrigin::External);
    each.webhooks.push(told("1", "of-the-first-8e41"));
    assert!(!each.awaits_secret());
    let making = WebhookRecord::creating(Some("push".into()));
    let attempt = making.attempt;
    each.webhooks.push(making);
    assert!(each.awaits_secret());
    // It is made, and a later call tells the secret.
    each.webhook_mut(attempt).unwrap().state = WebhookState::Created { id: "2".into() };
    assert!(each.awaits_secret());
    each.webhook_mut(attempt).unwrap().secret = Some("of-the-second-1d07".into());
    assert!(!each.awaits_secret());
    // One that cannot be used signs nothing that has to be believed.
    each.webhook_mut(attempt).unwrap().secret = None;
    each.reject(attempt);
    assert!(!each.awaits_secret());
    // A handshake tells the secret of the one that takes another's place.
    let mut shaken = custody(SecretOrigin::External);
    shaken.callback_secret = "first-told-51c7".into();
    shaken.webhooks.push(registered("1"));
    assert!(!shaken.awaits_secret());
    shaken.webhooks.push(WebhookRecord::creating(None));
    shaken.await_secret();
    assert!(shaken.awaits_secret());
    // What Bellhop or a person has chosen is known before.
    for origin in [SecretOrigin::Generated, SecretOrigin::NotNeeded, SecretOrigin::Given] {
        let mut known = custody(origin);
        known.callback_secret = "chosen-a-77b2".into();
        known.webhooks.push(WebhookRecord::creating(None));
        assert!(!known.awaits_secret(), "{origin:?}");
    }
}

#[test]
fn the_callback_name_follows_from_the_token_and_does_not_tell_it() {
    let name = custody(SecretOrigin::Generated).callback_name();
    assert_eq!(name.len(), "bellhop-".len() + 16);
    assert_eq!(name, custody(SecretOrigin::External).callback_name());
    assert!(!name.contains("Zk3dO2Jr8eY"));
}

#[test]
fn a_secret_is_captured_once() {
    let mut external = custody(SecretOrigin::External);
    assert!(!external.has_secret());
    assert_eq!(external.capture_secret(""), Capture::Refused);
    assert_eq!(external.capture_secret("theirs"), Capture::Stored);
    assert_eq!(external.capture_secret("theirs"), Capture::Same);
    assert_eq!(external.capture_secret("another"), Capture::Refused);
    assert_eq!(external.secrets(), ["theirs"]);
    let mut generated = custody(SecretOrigin::Generated);
    assert_eq!(generated.capture_secret("theirs"), Capture::Refused);
    assert_eq!(generated.secrets(), ["c2VjcmV0"]);
}

#[test]
fn while_a_webhook_is_replaced_the_secrets_of_both_are_accepted() {
    let mut custody = custody(SecretOrigin::External);
    let (old, new) = (registered("1"), WebhookRecord::creating(None));
    let (old_attempt, new_attempt) = (old.attempt, new.attempt);
    custody.webhooks.push(old);
    custody.capture_secret("first");
    custody.webhooks.push(new);
    custody.await_secret();
    assert_eq!(custody.secrets(), ["first"], "the old webhook goes on");
    assert_eq!(custody.capture_secret("first"), Capture::Same);
    assert_eq!(custody.capture_secret("second"), Capture::Stored);
    assert_eq!(custody.secrets(), ["second", "first"]);

    let mut refused = custody.clone();
    refused.forget(new_attempt, None);
    refused.stop_awaiting_secret();
    assert_eq!(refused.secrets(), ["first"], "a create call that was refused leaves nothing behind");

    custody.webhook_mut(new_attempt).unwrap().state = WebhookState::Created { id: "2".into() };
    custody.complete(new_attempt, 0);
    assert!(custody.webhook(old_attempt).unwrap().is_retiring());
    custody.forget(old_attempt, Some(500));
    assert_eq!(custody.secrets(), ["second", "first"], "for what is still under way");
    custody.drop_retired(500);
    assert_eq!(custody.secrets(), ["second"]);
}

#[test]
fn what_a_create_call_has_changed_in_place_is_not_deleted() {
    let mut custody = custody(SecretOrigin::External);
    let (old, new) =
        (WebhookRecord { secret: Some("first".into()), ..registered("bot") }, WebhookRecord::creating(None));
    let attempt = new.attempt;
    custody.webhooks.extend([old, new]);
    let record = custody.webhook_mut(attempt).unwrap();
    (record.state, record.secret) = (WebhookState::Created { id: "bot".into() }, Some("second".into()));
    custody.complete(attempt, 0);
    let left: Vec<_> = custody.webhooks.iter().map(|record| (record.attempt, record.is_registered())).collect();
    assert_eq!(left, [(attempt, true)], "the older record is about the same webhook");
    assert_eq!(custody.secrets(), ["second", "first"], "for what is still under way");
    custody.end_rotation(500);
    custody.drop_retired(500);
    assert_eq!(custody.secrets(), ["second"]);
}

#[test]
fn a_rotated_secret_is_accepted_until_every_webhook_has_the_new_one_and_the_grace_is_over() {
    let mut custody = custody(SecretOrigin::Generated);
    custody.replace_secret("new".into(), None);
    assert_eq!((custody.secrets(), custody.secret_version), (vec!["new".to_owned(), "c2VjcmV0".to_owned()], 1));
    custody.drop_retired(i64::MAX);
    assert_eq!(custody.secrets().len(), 2, "until further notice");
    custody.end_rotation(1000);
    custody.end_rotation(9000);
    custody.drop_retired(999);
    assert_eq!(custody.secrets().len(), 2);
    custody.drop_retired(1000);
    assert_eq!(custody.secrets(), ["new"]);
}

#[test]
fn old_secrets_do_not_pile_up() {
    let mut custody = custody(SecretOrigin::Given);
    for n in 0..100 {
        custody.replace_secret(format!("secret-{n}"), Some(n));
    }
    assert!(custody.secrets().len() <= 9, "{}", custody.secrets().len());
    assert_eq!(custody.secrets()[0], "secret-99");
    assert!(custody.secrets().contains(&"secret-98".to_owned()), "the oldest are refused");
}

#[test]
fn nothing_secret_is_printed() {
    let mut custody = custody(SecretOrigin::Generated);
    custody.webhooks.push(WebhookRecord { secret: Some("theirs".into()), ..registered("1") });
    custody.replace_secret("new".into(), None);
    let text = format!("{custody:?} {:?} {:?}", custody.webhooks, custody.previous_secrets);
    for secret in ["theirs", "c2VjcmV0", "new", "abc", "Zk3dO2Jr8eY"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert!(json!(custody).to_string().contains("theirs"));
}

/// The custody as an object of the API server, with this annotation.
fn object(custody: &Custody, version: Option<&str>) -> Value {
    use base64::Engine;
    let json = base64::engine::general_purpose::STANDARD.encode(serde_json::to_vec(custody).unwrap());
    let annotations = version.map(|version| json!({AUTHORIZATION_VERSION_ANNOTATION: version}));
    json!({
        "apiVersion": "v1", "kind": "Secret", "data": {"custody.json": json},
        "metadata": {"name": Custody::secret_name(custody.uid), "namespace": "bellhop-system", "annotations": annotations},
    })
}

#[tokio::test]
async fn what_came_of_a_call_and_what_others_have_written_meanwhile_are_both_kept() {
    let server = std::sync::Arc::new(ApiServer::default());
    let mut begun = custody(SecretOrigin::External);
    begun.webhooks.push(WebhookRecord::creating(None));
    let (uid, attempt) = (begun.uid, begun.webhooks[0].attempt);
    let path = format!("/api/v1/namespaces/bellhop-system/secrets/{}", Custody::secret_name(uid));
    server.put(&path, object(&begun, Some("7")));
    let vault = Vault::new(server.client(), "bellhop-system");
    let stored = vault.get(uid).await.unwrap().unwrap();

    // While the create call is open, the handshake arrives, and another process stores the secret.
    let (mut captured, to) = (begun.clone(), path.clone());
    captured.capture_secret("theirs");
    *server.before_write.lock().unwrap() = Some(Box::new(move |server| server.put(&to, object(&captured, Some("8")))));
    let created = |custody: &mut Custody| {
        custody.webhook_mut(attempt).unwrap().state = WebhookState::Registered { id: "17".into() };
    };
    vault.record(&stored, created).await.unwrap();
    let after = vault.get(uid).await.unwrap().unwrap();
    assert_eq!(after.custody.webhooks[0].id(), Some("17"), "the created id is not lost");
    assert_eq!(after.custody.callback_secret, "theirs", "nor is the secret");

    // The pass is not woken by itself, and is by others.
    let version = |server: &ApiServer| {
        let object = server.object(&path);
        object["metadata"]["annotations"][AUTHORIZATION_VERSION_ANNOTATION].as_str().unwrap().to_owned()
    };
    assert_eq!(version(&server), "8");
    vault.record(&after, |custody| custody.callback_secret = "another".into()).await.unwrap();
    assert_eq!(version(&server), "8");
    let after = vault.get(uid).await.unwrap().unwrap();
    vault.update(&after, |custody| custody.account = Some("acme-bot".into())).await.unwrap();
    assert_eq!(version(&server), "8", "what others have to say is told only where it matters");
    assert_eq!(vault.capture(uid, "theirs").await.unwrap(), Some(Capture::Refused));
    assert_eq!(version(&server), "8");
    let after = vault.get(uid).await.unwrap().unwrap();
    vault.update(&after, |custody| custody.authorization.version = 1).await.unwrap();
    assert_ne!(version(&server), "8");
    server.remove(&path);
    let gone = vault.get(uid).await.unwrap();
    assert!(gone.is_none() && vault.capture(uid, "theirs").await.unwrap().is_none());
}
