//! What vendors' own libraries sign is believed, and nothing else: not with one byte changed anywhere that the signature
//! covers, not with another secret, not much later. A library that verifies says the same of each of these requests.

use anyhow::{Context, Result, ensure};
use bellhop::api::TriggerPlugin;
use bellhop::plugin::{CallbackRequest, Plugin, Secret};
use bellhop_harness::signers::{self, Signed};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const NOW: i64 = 1_764_000_000;

/// The plugins whose callbacks have a time, with the longest that Bellhop believes them for, in seconds.
const TIMES: [(&str, i64); 8] = [
    ("standard-webhooks", 300),
    ("stripe", 300),
    ("gitlab", 300),
    ("slack", 300),
    ("linear", 60),
    ("discord", 300),
    ("sendgrid", 300),
    ("hubspot", 300),
];

/// Where libraries believe some of what was changed, and Bellhop does not: they read the beginning of a number or of base64
/// and leave the rest, read a list that is there twice, and write a URL as browsers do.
const LAXER: [(&str, &str); 11] = [
    ("@sendgrid/eventwebhook", "x-twilio-email-event-webhook-signature"),
    ("@sendgrid/eventwebhook", "x-twilio-email-event-webhook-signature twice"),
    ("discord-interactions", "x-signature-ed25519"),
    ("standardwebhooks", "webhook-signature twice"),
    ("standardwebhooks", "webhook-timestamp"),
    ("standardwebhooks", "webhook-timestamp twice"),
    ("stripe", "stripe-signature"),
    ("stripe", "stripe-signature twice"),
    ("svix", "svix-timestamp"),
    ("svix", "svix-timestamp twice"),
    ("twilio", "url"),
];

/// The plugin of the catalogue, else the one beside this file.
fn plugin(name: &str) -> Result<Plugin> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["charts/bellhop-plugins/plugins", "tests/it/vendors"];
    let paths = folders.map(|folder| root.join(folder).join(format!("{name}.yaml")));
    let text = std::fs::read_to_string(paths.iter().find(|path| path.exists()).context(name.to_owned())?)?;
    let resource: TriggerPlugin = serde_saphyr::from_str(&text)?;
    Plugin::compile(name, &resource.spec).map_err(|mistakes| anyhow::anyhow!("{name}: {mistakes:?}"))
}

fn plugins(signed: &[Signed]) -> Result<BTreeMap<String, Plugin>> {
    signed.iter().map(|one| Ok((one.plugin.clone(), plugin(&one.plugin)?))).collect()
}

/// Whether Bellhop believes a request that arrives some seconds after [`NOW`].
fn is_believed(one: &Signed, plugin: &Plugin, secret: &str, seconds: i64) -> bool {
    let method = one.method.as_deref().unwrap_or("POST");
    let request = CallbackRequest::stored(method, &one.query, &one.headers, &one.body);
    let request = request.at((NOW + seconds) * 1000).registered(one.url.as_deref());
    plugin.verify(&request, &[Secret::from(secret)]).is_ok()
}

/// A request that was changed in one place.
struct Altered {
    place: String,
    request: Signed,
}

/// The bytes with one of them changed, in every place and in several ways.
fn changes(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![[bytes, b"0"].concat()];
    for at in 0..bytes.len() {
        let (before, after) = (&bytes[..at], &bytes[at + 1..]);
        let byte = bytes[at];
        all.extend([1, 0x20].map(|difference| [before, &[byte ^ difference], after].concat()));
        all.extend([
            [before, after].concat(),
            [before, b"0", &bytes[at..]].concat(),
            [before, &[byte], &bytes[at..]].concat(),
        ]);
    }
    all
}

/// The same of a text in ASCII, which stays one.
fn text_changes(text: &str) -> Vec<String> {
    changes(text.as_bytes()).into_iter().filter_map(|bytes| String::from_utf8(bytes).ok()).collect()
}

/// The request with one change, anywhere: each byte of the body, of the signature, of the other headers, of the URL and of the
/// query that are signed; and each of these headers missing and there twice.
fn altered(one: &Signed) -> Vec<Altered> {
    let mut all = Vec::new();
    let mut push = |place: &str, change: &dyn Fn(&mut Signed)| {
        let mut request = one.clone();
        change(&mut request);
        if meaning(&request) != meaning(one) {
            all.push(Altered { place: place.to_owned(), request });
        }
    };
    // With 0x80 the body is no UTF-8 any more.
    let broken = (0..one.body.len()).map(|at| {
        let mut body = one.body.clone();
        body[at] ^= 0x80;
        body
    });
    for body in changes(&one.body).into_iter().chain(broken).chain([Vec::new()]) {
        push("body", &|request| request.body.clone_from(&body));
    }
    for name in one.covered.iter().chain([&one.signature]) {
        let at = one.headers.iter().position(|(header, _)| header == name).expect("the header that is signed");
        for value in text_changes(&one.headers[at].1).into_iter().chain([String::new()]) {
            push(name, &|request| request.headers[at].1.clone_from(&value));
        }
        push(&format!("{name} missing"), &|request| drop(request.headers.remove(at)));
        push(&format!("{name} twice"), &|request| request.headers.push(one.headers[at].clone()));
    }
    if let Some(url) = &one.url {
        for url in text_changes(url) {
            push("url", &|request| request.url = Some(url.clone()));
        }
        for query in text_changes(&one.query).into_iter().chain([String::new()]) {
            push("query", &|request| request.query.clone_from(&query));
        }
    }
    if one.method.is_some() {
        push("method", &|request| request.method = Some("PUT".to_owned()));
    }
    all
}

/// What a request means, where that is not each byte: hexadecimal digits in upper case are the same digits, an empty entry of
/// Stripe's list is none, Svix' list is one if it is there twice, and Twilio signs the fields of a form sorted, with nothing in
/// between.
fn meaning(one: &Signed) -> Signed {
    let mut meaning = one.clone();
    for (name, value) in &mut meaning.headers {
        if *name == one.signature {
            *value = lower_hex(value);
            if one.plugin == "stripe" {
                *value = value.split(',').filter(|entry| !entry.is_empty()).collect::<Vec<_>>().join(",");
            }
        }
    }
    if one.library == "svix" {
        meaning.headers.dedup_by(|one, other| one == other && one.0 == "svix-signature");
    }
    if one.plugin == "twilio" {
        let mut fields: Vec<_> = url::form_urlencoded::parse(&one.body).collect();
        fields.sort();
        meaning.body = fields.into_iter().flat_map(|(name, value)| [name, value]).collect::<String>().into_bytes();
    }
    meaning
}

/// A text with those digits in lower case that are a digest in hexadecimal.
fn lower_hex(text: &str) -> String {
    let end = |text: &str| text.find(|char: char| !char.is_ascii_hexdigit()).unwrap_or(text.len());
    let start = (0..text.len()).find(|at| end(&text[*at..]) >= 40);
    let Some(start) = start else { return text.to_owned() };
    let (before, rest) = text.split_at(start);
    let (digits, after) = rest.split_at(end(rest));
    format!("{before}{}{after}", digits.to_ascii_lowercase())
}

#[tokio::test]
async fn what_the_vendors_libraries_sign_is_believed_and_nothing_else() -> Result<()> {
    let signed = signers::sign(NOW).await?;
    ensure!(signed.len() >= 13, "{} libraries", signed.len());
    let plugins = plugins(&signed)?;
    for one in &signed {
        let (plugin, who) = (&plugins[&one.plugin], &one.library);
        ensure!(is_believed(one, plugin, &one.secret, 0), "{who} signs, and is not believed");
        let other = one.secret.replace(['1', '5', 'C', 'S'], "7");
        ensure!(other != one.secret && !is_believed(one, plugin, &other, 0), "{who}: any secret is believed");
        if let Some((_, longest)) = TIMES.iter().find(|(plugin, _)| *plugin == one.plugin) {
            ensure!(!is_believed(one, plugin, &one.secret, longest + 1), "{who}: an old request is believed");
        }
        let altered = altered(one);
        ensure!(altered.len() > 300, "{who}: {} changes", altered.len());
        for Altered { place, request } in altered {
            ensure!(!is_believed(&request, plugin, &one.secret, 0), "{who}: {place} does not count: {request:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_vendors_libraries_believe_what_bellhop_believes() -> Result<()> {
    let signed = signers::sign(NOW).await?;
    let plugins = plugins(&signed)?;
    let as_signed = signed.iter().map(|one| Altered { place: "nowhere".to_owned(), request: one.clone() });
    let (places, all): (Vec<_>, Vec<_>) =
        as_signed.chain(signed.iter().flat_map(altered)).map(|one| (one.place, one.request)).unzip();
    let theirs = signers::verify(NOW * 1000, &all).await?;
    ensure!(theirs.len() == all.len(), "{} verdicts on {} requests", theirs.len(), all.len());
    let mut laxer = BTreeSet::new();
    for ((one, place), theirs) in all.iter().zip(&places).zip(theirs) {
        let ours = is_believed(one, &plugins[&one.plugin], &one.secret, 0);
        ensure!(theirs || place != "nowhere", "{} refuses what is right: {one:?}", one.library);
        ensure!(theirs || !ours, "{} refuses what Bellhop believes, changed at {place}: {one:?}", one.library);
        if theirs != ours {
            laxer.insert((one.library.as_str(), place.as_str()));
        }
    }
    // Which of them depends on the signatures of the day.
    ensure!(laxer.is_subset(&BTreeSet::from(LAXER)), "libraries believe what Bellhop refuses, changed at {laxer:?}");
    Ok(())
}

/// A plugin whose requests bear a token of this algorithm.
fn bearer(token: &signers::Token) -> Result<Plugin> {
    let mut jwt = json!({
        "header": "authorization", "prefix": "Bearer ", "algorithms": [token.algorithm],
        "issuer": ["https://tokens.example.com"], "audience": {"url": {}},
        "claims": {"email": {"oneOf": ["bot@acme.example"]}, "email_verified": {"oneOf": ["true"]}},
    });
    if !token.jwks.is_empty() {
        jwt["keys"] = json!({"jwks": token.jwks});
    }
    let spec = json!({
        "displayName": "Tokens", "allowedOrigins": ["https://tokens.example.com"],
        "callback": {"verification": [{"jwt": jwt}], "event": "'told'"},
        "events": [{"name": "told", "title": "Told"}],
    });
    let spec = serde_json::from_value(spec)?;
    Plugin::compile("tokens", &spec).map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))
}

#[tokio::test]
async fn tokens_of_jose_are_believed_and_no_byte_of_them_may_differ() -> Result<()> {
    const URL: &str = "https://hooks.example.com/hooks/0123456789abcdef";
    let tokens = signers::tokens(NOW, URL).await?;
    ensure!(tokens.len() == 3, "{} algorithms", tokens.len());
    for token in &tokens {
        let (plugin, algorithm) = (bearer(token)?, &token.algorithm);
        let believed = |text: &str, secret: &str, url: &str, seconds: i64| {
            let headers = [("authorization".to_owned(), format!("Bearer {text}"))];
            let request = CallbackRequest::stored("POST", "", &headers, b"{}");
            let request = request.at((NOW + seconds) * 1000).registered(Some(url));
            plugin.verify(&request, &[Secret::from(secret)]).is_ok()
        };
        ensure!(believed(&token.good, &token.secret, URL, 0), "{algorithm}: jose signs, and is not believed");
        ensure!(
            !believed(&token.good, &token.secret, "https://hooks.example.com/hooks/other", 0),
            "{algorithm}: audience"
        );
        ensure!(!believed(&token.good, &token.secret, URL, 400), "{algorithm}: it is over");
        ensure!(!believed(&token.old, &token.secret, URL, 0), "{algorithm}: an old one is believed");
        ensure!(
            token.stranger.as_ref().is_none_or(|text| !believed(text, &token.secret, URL, 0)),
            "{algorithm}: a stranger"
        );
        ensure!(token.secret.is_empty() || !believed(&token.good, "another-secret-of-32-bytes-or-more", URL, 0));
        for altered in text_changes(&token.good) {
            ensure!(!believed(&altered, &token.secret, URL, 0), "{algorithm}: {altered} is believed");
        }
    }
    Ok(())
}
