//! `docs/catalogue.md`, made of the catalogue's plugins and of the requests that they are tested with.

use super::*;
use crate::api::{TriggerPlugin, Verification};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/catalogue.md";
/// With this set, the test writes the page instead of comparing it.
const UPDATE: &str = "BELLHOP_UPDATE";

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The plugins, by name; each file is named as what is in it.
pub(super) fn catalogue() -> BTreeMap<String, TriggerPlugin> {
    let folder = std::fs::read_dir(file("charts/bellhop-plugins/plugins")).unwrap();
    folder
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let plugin: TriggerPlugin =
                serde_saphyr::from_str(&read(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(plugin.metadata.name.as_deref(), Some(name.as_str()), "{}", path.display());
            (name, plugin)
        })
        .collect()
}

/// Which kinds of cases `tests/catalogue/NAME` has. How many of each is left out, so that another case changes nothing here.
fn cases(name: &str) -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    let Ok(folder) = std::fs::read_dir(file("tests/catalogue").join(name)) else { return kinds };
    for entry in folder {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") || path.ends_with("subscription.yaml") {
            continue;
        }
        let case: Value =
            serde_saphyr::from_str(&read(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let kind = case["kind"].as_str().unwrap_or_else(|| panic!("{}: kind", path.display()));
        kinds.insert(kind.to_owned());
    }
    kinds
}

/// What a side of a plugin was held against, and the tests that do so.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Side {
    against: String,
    tests: Vec<String>,
}

/// `tests/catalogue/NAME/shown.json`: what shows that the plugin is right.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    callbacks: Side,
    /// Of a plugin that makes no calls, nothing.
    calls: Option<Side>,
}

fn shown(name: &str) -> Shown {
    let path = file("tests/catalogue").join(name).join("shown.json");
    serde_json::from_str(&read(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether a test with this path is in the sources, such as `catalogue::gitea::FUNCTION` of the integration tests.
fn is_a_test(path: &str) -> bool {
    let Some((module, function)) = path.rsplit_once("::") else { return false };
    let module = module.replace("::", "/");
    let places = ["tests/it", "src"].into_iter().map(|folder| file(folder).join(format!("{module}.rs")));
    let texts = places.filter_map(|place| std::fs::read_to_string(place).ok());
    texts.into_iter().any(|text| {
        let mut before = "";
        text.lines().any(|line| {
            let attributed = ["#[test", "#[tokio::test"].iter().any(|attribute| before.starts_with(attribute));
            before = line.trim();
            // Those of `rehearsals!` have no `fn`.
            attributed && before.contains(&format!("fn {function}("))
                || before.starts_with(&format!("{function}: vendor::"))
        })
    })
}

fn methods(plugin: &TriggerPlugin) -> String {
    let authorization = &plugin.spec.authorization;
    let key = authorization.api_key.as_ref().map(|_| "apiKey");
    let oauth2 = authorization.oauth2.as_ref().map(|_| "oauth2");
    key.into_iter().chain(oauth2).chain(["manual"]).collect::<Vec<_>>().join(", ")
}

fn verification(verification: &Verification) -> String {
    let value = serde_json::to_value(verification).unwrap();
    let (kind, fields) = value.as_object().and_then(|fields| fields.iter().next()).unwrap();
    let algorithm = fields["algorithm"].as_str().map(|algorithm| format!(" {algorithm}")).unwrap_or_default();
    let place = ["header", "query"].iter().find_map(|place| fields[*place].as_str());
    let place = place.map(|place| format!(" in `{place}`")).unwrap_or_default();
    let basic = if fields["basic"] == json!(true) { " (basic)" } else { "" };
    format!("{kind}{algorithm}{place}{basic}")
}

fn renewal(plugin: &TriggerPlugin) -> String {
    let Some(webhook) = plugin.spec.webhook.as_ref().filter(|webhook| webhook.create.is_some()) else {
        return "made by hand".to_owned();
    };
    let expires = webhook.create.as_ref().is_some_and(|create| create.capture.expires_at.is_some())
        || webhook.after.iter().any(|step| step.capture.contains_key("expiresAt"));
    let by = webhook
        .renewal
        .as_ref()
        .and_then(|renewal| serde_json::to_value(renewal).ok()?["by"].as_str().map(str::to_owned));
    match (by, expires || webhook.renewal.is_some()) {
        (Some(by), _) => format!("by `{by}`"),
        (None, true) if webhook.refresh.is_some() => "by `refresh`".to_owned(),
        (None, true) => "by `replace`".to_owned(),
        (None, false) => "does not expire".to_owned(),
    }
}

fn page() -> String {
    let mut page = "\
# The catalogue

What the chart [bellhop-plugins](../charts/bellhop-plugins/README.md) can install. `make catalogue` writes this page, from the
plugins and from the requests that they are tested with.

- **Methods**: how a Subscription can be [authorized](subscriptions.md).
- **Events**: how many there are; `bellhop events PLUGIN` lists them with their parameters and variables.
- **Tested with**: requests in `tests/catalogue`. *Recorded* ones were sent by the real system; a *vendor*'s are published
  examples or vectors, signed by the vendor or its library; *documented* ones were made after the documentation.
- **Callbacks**, **Calls**: the best that the plugin was held against. *live*: the real system, which the tests run. *vendor*: payloads
  or vectors that the vendor has published, or signatures that its own library makes or verifies; then the payloads are as *Tested
  with* says. *schema*: the vendor's own description of its API. *documented*: requests, and a server of the tests, that were made
  after the vendor's pages. Nothing but *live* shows that the system does as its pages say.

| Plugin | System | Methods | Events | Verification | Webhook | Tested with | Callbacks | Calls |
|---|---|---|---|---|---|---|---|---|
"
    .to_owned();
    let catalogue = catalogue();
    for (name, plugin) in &catalogue {
        let spec = &plugin.spec;
        let system = match &spec.documentation_url {
            Some(url) => format!("[{}]({url})", spec.display_name),
            None => spec.display_name.clone(),
        };
        let verifications = spec.callback.verification.iter().map(verification).collect::<Vec<_>>().join(", or ");
        let cases = cases(name).into_iter().collect::<Vec<_>>().join(", ");
        let shown = shown(name);
        let row = [
            format!("[`{name}`](#{name})"),
            system,
            methods(plugin),
            spec.events.len().to_string(),
            verifications,
            renewal(plugin),
            cases,
            shown.callbacks.against,
            shown.calls.map_or_else(|| "none".to_owned(), |calls| calls.against),
        ];
        writeln!(page, "| {} |", row.join(" | ")).unwrap();
    }
    for (name, plugin) in &catalogue {
        writeln!(page, "\n## {name}\n").unwrap();
        if let Some(description) = &plugin.spec.description {
            writeln!(page, "{}\n", description.trim()).unwrap();
        }
        let file = format!("charts/bellhop-plugins/plugins/{name}.yaml");
        writeln!(page, "[The plugin](../{file}), with the pages that its facts come from.").unwrap();
        writeln!(page, "[The tests](../tests/catalogue/{name}/shown.json) that show that it is right.").unwrap();
        if self::file("tests/catalogue").join(name).join("README.md").exists() {
            writeln!(page, "[The requests](../tests/catalogue/{name}/README.md) that it is tested with.").unwrap();
        }
        let events = plugin.spec.events.iter().map(|event| format!("`{}`", event.name)).collect::<Vec<_>>();
        if let Some(deadline) = plugin.spec.callback.answer.as_ref().and_then(|answer| answer.deadline.as_ref()) {
            let seconds = std::time::Duration::from(*deadline).as_secs_f64();
            writeln!(page, "A runner can [answer](triggers.md#answering-the-sender) the sender, within {seconds} s.")
                .unwrap();
        }
        writeln!(page, "\nEvents: {}", events.join(", ")).unwrap();
    }
    page
}

#[test]
fn the_page_of_the_catalogue_is_what_the_catalogue_says() {
    let (made, path) = (page(), file(PAGE));
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    assert!(read(&path) == made, "{PAGE} is not what the catalogue says; run `make catalogue`");
}

#[test]
fn every_plugin_of_the_catalogue_compiles_and_says_what_it_is() {
    for (name, plugin) in catalogue() {
        let spec = &plugin.spec;
        let compiled = Plugin::compile(&name, spec);
        assert!(compiled.is_ok(), "{name}: {:#?}", compiled.unwrap_err());
        assert!(spec.documentation_url.is_some(), "{name}: documentationURL");
        assert!(spec.initials.is_some(), "{name}: initials");
        assert!(spec.description.is_some(), "{name}: description");
        assert!(!cases(&name).is_empty(), "{name} is tested with nothing");
    }
}

#[test]
fn what_shows_that_a_plugin_is_right_is_there() {
    for (name, plugin) in catalogue() {
        let shown = shown(&name);
        let makes_calls = plugin.spec.webhook.as_ref().is_some_and(|webhook| webhook.create.is_some());
        assert_eq!(shown.calls.is_some(), makes_calls, "{name}: calls");
        let calls = shown.calls.iter().map(|side| (side, ["live", "schema", "documented"]));
        for (side, words) in [(&shown.callbacks, ["live", "vendor", "documented"])].into_iter().chain(calls) {
            assert!(words.contains(&side.against.as_str()), "{name}: {} is none of {words:?}", side.against);
            assert!(!side.tests.is_empty(), "{name}: no test shows it");
            for test in &side.tests {
                assert!(is_a_test(test), "{name}: there is no test {test}");
            }
        }
    }
    assert!(!is_a_test("catalogue::gitea::the_webhook") && !is_a_test("vendors::plugins::plugin"));
}

#[test]
fn the_chart_offers_what_the_catalogue_has() {
    let schema: Value = serde_json::from_str(&read(&file("charts/bellhop-plugins/values.schema.json"))).unwrap();
    let offered: Vec<&str> =
        schema["properties"]["plugins"]["items"]["enum"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(offered, catalogue().keys().map(String::as_str).collect::<Vec<_>>());
}

/// One object may have a megabyte and a half in etcd, and a release of Helm, packed, one.
#[test]
fn no_plugin_is_too_big() {
    let mut total = 0;
    for (name, plugin) in catalogue() {
        let size = serde_json::to_string(&plugin).unwrap().len();
        total += size;
        assert!(size < 256 << 10, "{name} has {size} bytes");
    }
    assert!(total < 1 << 20, "all of them have {total} bytes");
}
