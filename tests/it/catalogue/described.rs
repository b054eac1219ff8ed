//! The calls about webhooks, as a plugin really makes them, against the vendor's own description of its API: the path and the
//! method exist, every part of the query and every field of the body is described and has the described type, and what is
//! required is there. What is answered is made up after the same description, and has to be understood.

use super::{Caller, made_up, plugin};
use anyhow::{Context, Result, bail, ensure};
use bellhop::plugin::{CallContext, HttpCall, HttpResponse, Page, Plugin, WebhookRef};
use bellhop_harness::{published, world};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const CALLBACK: &str = "https://hooks.example.com/hooks/0123456789abcdef";
/// Deepest schema that is looked into; descriptions refer to themselves.
const DEEPEST: usize = 10;

/// A description: OpenAPI 3.0, or Swagger 2.0.
struct Description {
    whole: Value,
    /// What stands before the paths.
    base: String,
}

/// An operation of a description.
struct Operation<'a> {
    description: &'a Description,
    value: &'a Value,
}

impl Description {
    /// The operation that a call is: its path's segments are the template's, or fill its parameters.
    fn operation(&self, call: &HttpCall) -> Result<Operation<'_>> {
        let path = call.url.path().strip_prefix(self.base.as_str()).context("another path")?;
        let fills = |template: &str| {
            let (mine, theirs) = (path.split('/').collect::<Vec<_>>(), template.split('/').collect::<Vec<_>>());
            mine.len() == theirs.len()
                && theirs.iter().zip(&mine).all(|(their, my)| their == my || their.starts_with('{') && !my.is_empty())
        };
        let paths = self.whole["paths"].as_object().context("paths")?;
        let fitting = paths.iter().filter(|(template, _)| fills(template));
        let (template, methods) = fitting
            .min_by_key(|(template, _)| template.matches('{').count())
            .with_context(|| format!("no path {path}"))?;
        let value = &methods[call.method.as_str().to_lowercase()];
        ensure!(value.is_object(), "{template} has no {}", call.method);
        Ok(Operation { description: self, value })
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(path) => self.whole.pointer(path.trim_start_matches('#')).unwrap_or(&Value::Null),
            None => value,
        }
    }

    /// A schema with what it refers to, in which an object has no other properties than those that are described.
    fn strict(&self, schema: &Value, depth: usize) -> Value {
        if depth > DEEPEST {
            return json!({});
        }
        let schema = self.resolved(schema);
        let Some(fields) = schema.as_object() else { return schema.clone() };
        let mut made = Map::new();
        for (name, value) in fields {
            let value = match (name.as_str(), value) {
                ("properties", Value::Object(properties)) => properties
                    .iter()
                    .map(|(name, schema)| (name.clone(), self.strict(schema, depth + 1)))
                    .collect::<Map<_, _>>()
                    .into(),
                ("oneOf" | "anyOf" | "allOf", Value::Array(all)) => {
                    all.iter().map(|schema| self.strict(schema, depth + 1)).collect()
                }
                ("items" | "additionalProperties", schema @ Value::Object(_)) => self.strict(schema, depth + 1),
                // Not what JSON Schema means by these words.
                ("example" | "nullable" | "discriminator" | "xml", _) => continue,
                _ => value.clone(),
            };
            made.insert(name.clone(), value);
        }
        if made.contains_key("properties") && !made.contains_key("allOf") {
            made.entry("additionalProperties").or_insert(json!(false));
        }
        made.into()
    }
}

impl Operation<'_> {
    fn parameters(&self, place: &str) -> BTreeMap<&str, &Value> {
        let all = self.value["parameters"].as_array().into_iter().flatten();
        let all = all.map(|parameter| self.description.resolved(parameter)).filter(|found| found["in"] == place);
        all.filter_map(|found| Some((found["name"].as_str()?, found))).collect()
    }

    /// The schema of a body in JSON; nothing, if there is no body.
    fn body(&self) -> Option<&Value> {
        let modern = &self.description.resolved(&self.value["requestBody"])["content"]["application/json"]["schema"];
        let older = self.parameters("body").into_values().map(|parameter| &parameter["schema"]).next();
        older.or((!modern.is_null()).then_some(modern))
    }

    /// An answer of success: its status, and a body that fits.
    fn answer(&self) -> Result<(u16, Value)> {
        let all = self.value["responses"].as_object().context("responses")?;
        let (status, answer) = all.iter().find(|(status, _)| status.starts_with('2')).context("no success")?;
        let answer = self.description.resolved(answer);
        let modern = &answer["content"]["application/json"]["schema"];
        let schema = if modern.is_null() { &answer["schema"] } else { modern };
        Ok((status.parse()?, made_up::payload(&self.description.whole, schema)))
    }

    fn check(&self, call: &HttpCall) -> Result<()> {
        let described = self.parameters("query");
        for (name, value) in call.url.query_pairs() {
            let parameter = described.get(name.as_ref()).with_context(|| format!("the query has no {name}"))?;
            let schema = if parameter["schema"].is_null() { parameter } else { &parameter["schema"] };
            let type_ = self.description.resolved(schema)["type"].as_str().unwrap_or("string");
            ensure!(type_ != "integer" || value.parse::<i64>().is_ok(), "{name}={value} is no {type_}");
        }
        for (name, parameter) in &described {
            let there = call.url.query_pairs().any(|(found, _)| found == *name);
            ensure!(parameter["required"] != json!(true) || there, "the query lacks {name}");
        }
        match (self.body(), &call.body) {
            (None, None) => Ok(()),
            (None, Some(_)) => bail!("a body is not described"),
            (Some(_), None) => bail!("there is no body"),
            (Some(schema), Some(body)) => {
                ensure!(call.headers["content-type"] == "application/json", "{:?}", call.headers);
                let (body, schema) = (serde_json::from_slice(body)?, self.description.strict(schema, 0));
                let validator = jsonschema::validator_for(&schema)?;
                let mistakes: Vec<String> =
                    validator.iter_errors(&body).map(|error| format!("{}: {error}", error.instance_path())).collect();
                ensure!(mistakes.is_empty(), "{} in {body:#}", mistakes.join("; "));
                Ok(())
            }
        }
    }
}

/// Every call of a plugin for these parameters.
struct Calls<'a> {
    plugin: &'a Plugin,
    description: &'a Description,
}

impl Calls<'_> {
    /// Checks a call, and gives what is answered.
    fn asked(&self, what: &str, call: &HttpCall) -> Result<HttpResponse> {
        let told = || format!("{what}: {} {}", call.method, call.url);
        let operation = self.description.operation(call).with_context(told)?;
        operation.check(call).with_context(told)?;
        let (status, body) = operation.answer().with_context(told)?;
        let headers = reqwest::header::HeaderMap::new();
        Ok(HttpResponse { status, headers, body: body.to_string().into() })
    }

    fn check(&self, parameters: &Value, events: &[&str]) -> Result<()> {
        let (plugin, parameters) = (self.plugin, parameters.as_object().cloned().context("parameters")?);
        plugin.check_parameters(&parameters).map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
        let caller = Caller::new("a-secret-of-43-characters-in-base64", events.iter().copied());
        let webhook = WebhookRef { id: "7".to_owned(), values: BTreeMap::new() };
        let context = caller.context(&parameters, CALLBACK);
        let call = plugin.verify_call(&context)?.context("verify")?;
        plugin.account(&self.asked("verify", &call)?)?.context("an account")?;
        let created = self.asked("create", &plugin.create_call(&context)?)?;
        ensure!(plugin.created(&context, &created)?.id == "7", "{created:?}");

        let context = CallContext { webhook: Some(&webhook), ..context };
        let call = plugin.find_call(&context, &Page::First)?.context("find")?;
        let mut listed = self.asked("find", &call)?;
        let mut webhooks: Value = serde_json::from_slice(&listed.body)?;
        webhooks[0]["config"]["url"] = json!("https://elsewhere.example.com");
        listed.body = webhooks.to_string().into();
        ensure!(plugin.found(&context, &listed)?.is_empty(), "somebody else's is found: {listed:?}");
        webhooks[0]["config"]["url"] = json!(CALLBACK);
        webhooks[0]["active"] = json!(true);
        webhooks[0]["events"] = json!(events);
        listed.body = webhooks.to_string().into();
        let found = plugin.found(&context, &listed)?;
        ensure!(found.len() == 1 && found[0].id == "7" && found[0].healthy, "{found:?}");
        if let Some(call) = plugin.update_call(&context)? {
            plugin.updated(&self.asked("update", &call)?)?;
        }
        let call = plugin.delete_call(&context)?.context("delete")?;
        Ok(plugin.deleted(&self.asked("delete", &call)?)?)
    }
}

#[tokio::test]
async fn githubs_calls_are_as_github_describes_them() -> Result<()> {
    let description = Description { whole: published::github_api().await?, base: String::new() };
    let (_, plugin) = plugin("github")?;
    let calls = Calls { plugin: &plugin, description: &description };
    calls.check(&json!({"owner": "acme", "repository": "web"}), &["push", "issues"]).context("a repository's")?;
    calls.check(&json!({"organization": "acme"}), &["push", "team"]).context("an organization's")
}

/// The real Gitea describes itself.
#[tokio::test]
async fn giteas_calls_are_as_gitea_describes_them() -> Result<()> {
    let base_url = world::shared().await.gitea.url();
    let (status, whole) =
        bellhop_harness::http::json(reqwest::Method::GET, &format!("{base_url}/swagger.v1.json"), None, None).await?;
    ensure!(status == 200 && whole["swagger"] == "2.0", "{status}");
    let description = Description { base: whole["basePath"].as_str().context("basePath")?.to_owned(), whole };
    let (_, plugin) = plugin("gitea")?;
    let calls = Calls { plugin: &plugin, description: &description };
    let repository = json!({"baseURL": base_url, "owner": "acme", "repository": "web"});
    calls.check(&repository, &["push", "issues"]).context("a repository's")?;
    calls
        .check(&json!({"baseURL": base_url, "organization": "acme"}), &["push", "repository"])
        .context("an organization's")
}
