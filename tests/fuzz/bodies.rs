//! Bodies and queries: JSON, forms, JSON in forms, and whatever else arrives.

use super::{Sent, hold, plugin};
use proptest::prelude::*;
use serde_json::{Value, json};

fn json_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            proptest::collection::btree_map(".{0,6}", inner, 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn sent(content_type: &'static str, body: Vec<u8>) -> Sent {
    Sent { headers: vec![("content-type", content_type.as_bytes().to_vec())], body, ..Sent::default() }
}

/// What was written is read, to the last digit; and what is no JSON for `serde_json` is none for Bellhop.
#[test]
fn json_body() {
    let plugin = plugin(json!({}));
    let cases =
        (json_values(), any::<prop::sample::Index>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..60));
    hold("tests/fuzz/regressions/json.txt", &cases, |(value, at, byte, noise)| {
        let value = json!({"value": value});
        let text = value.to_string().into_bytes();
        let (variables, notes) = sent("application/json", text.clone()).ask(0, |request| {
            let reading = plugin.read(request).expect("what was written is read");
            plugin.variables(&reading, &plugin.events(&reading).expect("one event")[0])
        });
        prop_assert_eq!(&variables["body"], &value, "{:?}", notes);
        let mut changed = text;
        let place = at.index(changed.len());
        changed[place] = byte;
        for body in [changed, noise] {
            let is_json = serde_json::from_slice::<Value>(&body).is_ok();
            let (read, checked) = sent("application/json", body.clone())
                .ask(0, |request| (plugin.read(request).is_ok(), plugin.check_body(request).is_ok()));
            prop_assert_eq!(read, checked, "what is checked is what is read: {:?}", &body);
            prop_assert_eq!(read, is_json || body.is_empty(), "{:?}", &body);
        }
        Ok(())
    });
}

/// Fields of forms and queries come out as they were put in, the first of each name; noise is no reason to fail.
#[test]
fn form_and_query() {
    let plain = plugin(json!({"event": "body.?name.orValue('none')"}));
    let query = plugin(json!({"event": "request.query.?name.orValue('none')"}));
    let payload = plugin(json!({"formPayloadField": "payload"}));
    let pairs = proptest::collection::vec((prop_oneof![Just("name".to_owned()), ".{0,6}".boxed()], ".{0,12}"), 0..6);
    let noise =
        proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'%'), Just(b'&'), Just(b'='), Just(b'+')], 0..80);
    hold("tests/fuzz/regressions/form.txt", &(pairs, noise), |(pairs, noise)| {
        const FORM: &str = "application/x-www-form-urlencoded";
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
        let expected = pairs.iter().find(|(name, _)| name == "name").map_or("none", |(_, value)| value.as_str());
        let name = |sent: &Sent, plugin: &bellhop::plugin::Plugin| {
            sent.ask(0, |request| {
                let reading = plugin.read(request).ok()?;
                plugin.events(&reading).ok()?.into_iter().next()?.name.ok()
            })
        };
        if !form.is_empty() {
            let found = name(&sent(FORM, form.clone().into_bytes()), &plain);
            prop_assert_eq!(found.as_deref(), Some(expected), "{}", form);
        }
        let found = name(&Sent { query: form.clone(), ..Sent::default() }, &query);
        prop_assert_eq!(found.as_deref(), Some(expected), "{}", form);
        // What a form says is read from one field only, and that field is there once.
        let noisy = sent(FORM, noise.clone());
        name(&noisy, &plain);
        let fields = url::form_urlencoded::parse(&noise).filter(|(name, _)| name == "payload").count();
        let read = noisy.ask(0, |request| plugin_reads(&payload, request));
        prop_assert!(noise.is_empty() || fields == 1 || !read);
        name(&Sent { query: String::from_utf8_lossy(&noise).into_owned(), ..Sent::default() }, &query);
        Ok(())
    });
}

fn plugin_reads(plugin: &bellhop::plugin::Plugin, request: &bellhop::plugin::CallbackRequest<'_>) -> bool {
    plugin.read(request).is_ok()
}
