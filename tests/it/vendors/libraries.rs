//! What vendors' own libraries sign is believed by the plugin of the catalogue, and nothing else: not with one byte changed
//! anywhere, not with another secret, not much later. A library that verifies says the same of each of these requests.

use anyhow::{Context, Result, ensure};
use bellhop::api::TriggerPlugin;
use bellhop::plugin::{CallbackRequest, Plugin, Secret};
use bellhop_harness::signers::{self, Signed};
use bellhop_harness::vendor::now;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

const NOW: i64 = 1_764_000_000;

/// The plugins whose callbacks have a time, with the longest that Bellhop believes them for, in seconds.
const TIMES: [(&str, i64); 6] =
    [("standard-webhooks", 300), ("stripe", 300), ("gitlab", 300), ("slack", 300), ("linear", 60), ("discord", 300)];

fn plugin(name: &str) -> Result<Plugin> {
    let path = format!("charts/bellhop-plugins/plugins/{name}.yaml");
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))?;
    let resource: TriggerPlugin = serde_saphyr::from_str(&text)?;
    Plugin::compile(name, &resource.spec).map_err(|mistakes| anyhow::anyhow!("{name}: {mistakes:?}"))
}

struct Altered<'a> {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    of: &'a Signed,
}

impl Altered<'_> {
    fn is_believed(&self, plugin: &Plugin, secret: &str, seconds: i64) -> bool {
        let request = CallbackRequest::stored("POST", &self.of.query, &self.headers, &self.body);
        let request = request.at((NOW + seconds) * 1000).registered(self.of.url.as_deref());
        plugin.verify(&request, &[Secret::from(secret)]).is_ok()
    }
}

#[tokio::test]
async fn what_the_vendors_libraries_sign_is_believed_and_nothing_else() -> Result<()> {
    let signed = signers::sign(NOW).await?;
    ensure!(signed.len() >= 11, "{} libraries", signed.len());
    for one in &signed {
        let (plugin, who) = (plugin(&one.plugin)?, &one.library);
        let headers: Vec<(String, String)> =
            one.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let body = one.body.clone().into_bytes();
        let as_it_is = Altered { headers: headers.clone(), body: body.clone(), of: one };
        ensure!(as_it_is.is_believed(&plugin, &one.secret, 0), "{who} signs, and is not believed");
        let other = one.secret.replace(['1', '5', 'C', 'S'], "7");
        ensure!(other != one.secret && !as_it_is.is_believed(&plugin, &other, 0), "{who}: any secret is believed");
        if let Some((_, longest)) = TIMES.iter().find(|(plugin, _)| *plugin == one.plugin) {
            ensure!(!as_it_is.is_believed(&plugin, &one.secret, longest + 1), "{who}: an old request is believed");
        }
        for at in 0..body.len() {
            let mut body = body.clone();
            body[at] ^= 1;
            let altered = Altered { headers: headers.clone(), body, of: one };
            ensure!(!altered.is_believed(&plugin, &one.secret, 0), "{who}: byte {at} of the body does not count");
        }
        let place = headers.iter().position(|(name, _)| *name == one.signature).context("a signature")?;
        for at in 0..headers[place].1.len() {
            let mut bytes = headers[place].1.clone().into_bytes();
            bytes[at] ^= 1;
            let mut headers = headers.clone();
            headers[place].1 = String::from_utf8(bytes)?;
            let altered = Altered { headers, body: body.clone(), of: one };
            ensure!(!altered.is_believed(&plugin, &one.secret, 0), "{who}: byte {at} of the signature does not count");
        }
    }
    Ok(())
}

/// Each request with one byte changed, in the body, in the signature and in what else is a header with a time.
fn altered(one: &Signed) -> Vec<Signed> {
    let mut all = Vec::new();
    for at in 0..one.body.len() {
        let mut body = one.body.clone().into_bytes();
        body[at] ^= 1;
        all.extend(String::from_utf8(body).ok().map(|body| Signed { body, ..one.clone() }));
    }
    for name in one.headers.keys().filter(|name| **name == one.signature || name.ends_with("-timestamp")) {
        for at in 0..one.headers[name].len() {
            let mut value = one.headers[name].clone().into_bytes();
            value[at] ^= 1;
            let mut altered = one.clone();
            altered.headers.insert(name.clone(), String::from_utf8_lossy(&value).into_owned());
            all.push(altered);
        }
    }
    all
}

#[tokio::test]
async fn the_vendors_libraries_believe_what_bellhop_believes() -> Result<()> {
    let at = now();
    // Standard Webhooks and others refuse what is only a little late, so the clock is the real one.
    let signed = signers::sign(at / 1000).await?;
    let good = signed.len();
    let all: Vec<Signed> = signed.iter().cloned().chain(signed.iter().flat_map(altered)).collect();
    let theirs = signers::verify(&all).await?;
    ensure!(theirs.len() == all.len() && all.len() > 1000, "{} verdicts on {} requests", theirs.len(), all.len());
    ensure!(
        theirs[..good].iter().all(|believed| *believed),
        "the libraries refuse what is right: {:?}",
        &theirs[..good]
    );
    let mut plugins = BTreeMap::new();
    for one in &signed {
        plugins.insert(one.plugin.clone(), plugin(&one.plugin)?);
    }
    for (one, theirs) in all.iter().zip(&theirs) {
        let headers: Vec<(String, String)> =
            one.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let request = CallbackRequest::stored("POST", &one.query, &headers, one.body.as_bytes());
        let request = request.at(at).registered(one.url.as_deref());
        let ours = plugins[&one.plugin].verify(&request, &[Secret::from(one.secret.as_str())]).is_ok();
        ensure!(ours == *theirs, "{} says {theirs}, Bellhop {ours}: {one:?}", one.library);
    }
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
        for at in 0..token.good.len() {
            let mut bytes = token.good.clone().into_bytes();
            bytes[at] ^= 1;
            let altered = String::from_utf8(bytes)?;
            ensure!(!believed(&altered, &token.secret, URL, 0), "{algorithm}: byte {at} does not count");
        }
    }
    Ok(())
}
