//! What vendors' own libraries sign is believed by the plugin of the catalogue, and nothing else: not with one byte changed
//! anywhere, not with another secret, not much later.

use anyhow::{Context, Result, ensure};
use bellhop::api::TriggerPlugin;
use bellhop::plugin::{CallbackRequest, Plugin, Secret};
use bellhop_harness::signers::{self, Signed};
use std::path::Path;

const NOW: i64 = 1_764_000_000;

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
    ensure!(signed.len() >= 5, "{} libraries", signed.len());
    for one in &signed {
        let (plugin, who) = (plugin(&one.plugin)?, &one.library);
        let headers: Vec<(String, String)> =
            one.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let body = one.body.clone().into_bytes();
        let as_it_is = Altered { headers: headers.clone(), body: body.clone(), of: one };
        ensure!(as_it_is.is_believed(&plugin, &one.secret, 0), "{who} signs, and is not believed");
        let other = one.secret.replace(['1', '5', 'C', 'S'], "7");
        ensure!(other != one.secret && !as_it_is.is_believed(&plugin, &other, 0), "{who}: any secret is believed");
        if one.headers.keys().any(|name| name.ends_with("-timestamp")) || one.plugin == "stripe" {
            ensure!(!as_it_is.is_believed(&plugin, &one.secret, 301), "{who}: an old request is believed");
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
