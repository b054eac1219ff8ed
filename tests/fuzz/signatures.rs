//! Every scheme: what its signer has made is accepted, and nothing else is.

use super::schemes::{Message, Scheme, TIME, all};
use super::{Sent, header_bytes, hold, plugin};
use bellhop::plugin::Plugin;
use proptest::prelude::*;
use serde_json::json;

const NOW: i64 = TIME * 1000;

fn messages() -> impl Strategy<Value = Message> {
    let query = "([a-z]{1,3}=[a-z0-9%]{0,4}){0,1}(&[a-z]=[a-z]){0,2}";
    (proptest::collection::vec(any::<u8>(), 0..300), query, "[!-~]{1,30}").prop_map(|(body, query, id)| Message {
        body,
        query,
        id,
    })
}

/// A seed, and another one.
fn seeds() -> impl Strategy<Value = ([u8; 32], [u8; 32])> {
    // The first bit is another one, because it alone says which key of ECDSA is meant.
    any::<([u8; 32], [u8; 32])>().prop_map(|(seed, mut other)| {
        other[0] = (other[0] & 0x7f) | (!seed[0] & 0x80);
        (seed, other)
    })
}

/// What somebody changes on the way.
#[derive(Clone, Debug)]
enum Change {
    /// A byte is another one.
    Byte(u8),
    /// A byte is gone.
    Shorter,
    /// A byte is there twice.
    Longer,
    /// Everything from there is gone.
    Cut,
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (1_u8..=255).prop_map(Change::Byte),
        1 => Just(Change::Shorter),
        1 => Just(Change::Longer),
        1 => Just(Change::Cut)
    ]
}

fn change(bytes: &mut Vec<u8>, at: prop::sample::Index, change: &Change) {
    if bytes.is_empty() {
        bytes.push(b'0');
        return;
    }
    let at = at.index(bytes.len());
    match change {
        Change::Byte(difference) => bytes[at] ^= difference,
        Change::Shorter => drop(bytes.remove(at)),
        Change::Longer => bytes.insert(at, bytes[at]),
        Change::Cut => bytes.truncate(at),
    }
}

fn compiled() -> Vec<(Scheme, Plugin)> {
    let compile = |scheme: Scheme| {
        let plugin = plugin(json!({"verification": [scheme.verification.clone()]}));
        (scheme, plugin)
    };
    all().into_iter().map(compile).collect()
}

/// Changes one thing that is covered; whether there was something.
fn tamper(scheme: &Scheme, sent: &mut Sent, place: prop::sample::Index, at: prop::sample::Index, how: &Change) -> bool {
    let places = scheme.headers.len() + usize::from(scheme.covers_body) + usize::from(scheme.covers_query);
    let place = place.index(places);
    if let Some(name) = scheme.headers.get(place) {
        let value = sent.headers.iter_mut().find(|(header, _)| header == name);
        value.map(|(_, value)| change(value, at, how)).is_some()
    } else if place == scheme.headers.len() && scheme.covers_body {
        change(&mut sent.body, at, how);
        true
    } else {
        let mut query = std::mem::take(&mut sent.query).into_bytes();
        change(&mut query, at, how);
        sent.query = String::from_utf8_lossy(&query).into_owned();
        true
    }
}

#[test]
fn signature_accepted_and_with_one_change_anywhere_refused() {
    let schemes = compiled();
    let index = any::<prop::sample::Index>;
    let cases = (0..schemes.len(), seeds(), messages(), index(), index(), changes());
    hold("tests/fuzz/regressions/changed.txt", &cases, |(number, (seed, other), message, place, at, how)| {
        let (scheme, plugin) = &schemes[number];
        let (secret, other) = ((scheme.secret)(&seed), (scheme.secret)(&other));
        let sent = (scheme.sign)(&seed, &message);
        prop_assert!(sent.is_accepted(plugin, NOW, &secret), "{}: refused as it was signed: {sent:?}", scheme.name);
        // While a secret is replaced, either is good.
        let (rotating, back) = ([other.as_str(), secret.as_str()], [secret.as_str(), other.as_str()]);
        for secrets in [rotating, back] {
            prop_assert!(sent.is_accepted_with(plugin, NOW, &secrets), "{}: not with two secrets", scheme.name);
        }
        let mut changed = sent.clone();
        let could = tamper(scheme, &mut changed, place, at, &how);
        prop_assume!(
            could
                && (scheme.meaning)(&changed) != (scheme.meaning)(&sent)
                && changed.header_map().len() == sent.header_map().len()
        );
        prop_assert!(!changed.is_accepted(plugin, NOW, &secret), "{}: {changed:?} is accepted", scheme.name);
        prop_assert!(!changed.is_accepted_with(plugin, NOW, &rotating), "{}: {changed:?} is accepted", scheme.name);
        Ok(())
    });
}

#[test]
fn signature_with_another_key_or_at_another_time_refused() {
    let schemes = compiled();
    let cases = (0..schemes.len(), seeds(), messages(), any::<i64>());
    hold("tests/fuzz/regressions/another_key.txt", &cases, |(number, (seed, other), message, time)| {
        let (scheme, plugin) = &schemes[number];
        let sent = (scheme.sign)(&seed, &message);
        let (secret, other) = ((scheme.secret)(&seed), (scheme.secret)(&other));
        prop_assert!(!sent.is_accepted(plugin, NOW, &other), "{}: another key", scheme.name);
        prop_assert!(!sent.is_accepted_with(plugin, NOW, &[&other, "", "no key"]), "{}: other keys", scheme.name);
        prop_assert!(!sent.is_accepted(plugin, NOW, ""), "{}: no key", scheme.name);
        // Whatever the clock says, it is an answer; and where a time is signed, only the right one is accepted.
        let accepted = sent.is_accepted(plugin, time, &secret);
        let timed =
            scheme.verification.to_string().contains("timestamp") || scheme.headers.contains(&"webhook-timestamp");
        prop_assert!(!timed || !accepted || (time - NOW).abs() <= 300_007, "{}: accepted at {time}", scheme.name);
        Ok(())
    });
}

#[test]
fn signature_of_noise_refused() {
    let schemes = compiled();
    let almost = prop_oneof![
        header_bytes(),
        "(sha256=)?[0-9a-f]{64}".prop_map(String::into_bytes),
        "t=[0-9]{0,12},(v1=[0-9a-f]{0,70},?){0,4}".prop_map(String::into_bytes),
        "(v1a?,[A-Za-z0-9+/]{0,90}={0,2} ?){0,4}".prop_map(String::into_bytes),
        "[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,50}".prop_map(String::into_bytes),
        "[0-9T:Z.+e-]{0,30}".prop_map(String::into_bytes),
    ];
    let times = prop_oneof![Just(TIME.to_string().into_bytes()), almost.clone()];
    let cases = (0..schemes.len(), seeds(), messages(), almost, times);
    hold("tests/fuzz/regressions/noise.txt", &cases, |(number, (seed, _), message, signature, time)| {
        let (scheme, plugin) = &schemes[number];
        let mut sent = (scheme.sign)(&seed, &message);
        for (name, value) in &mut sent.headers {
            match *name {
                "x-sig" | "webhook-signature" => value.clone_from(&signature),
                "x-time" | "webhook-timestamp" => value.clone_from(&time),
                _ => {}
            }
        }
        if scheme.headers.is_empty() {
            sent.query = String::from_utf8_lossy(&[b"nonce=n&sig=", &signature[..]].concat()).into_owned();
            sent.body.clone_from(&time);
        }
        prop_assert!(!sent.is_accepted(plugin, NOW, &(scheme.secret)(&seed)), "{}: {sent:?}", scheme.name);
        Ok(())
    });
}
