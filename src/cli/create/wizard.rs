//! The questions about a Subscription, on a terminal. They are written to standard error: standard output is the manifest's.

use super::Draft;
use super::parameters::{Parameters, read};
use crate::api::TriggerPlugin;
use crate::cli::events::type_of;
use crate::cli::exit::Exit;
use crate::cli::output::clean;
use crate::plugin::{Plugin, SecretSource};
use console::Term;
use dialoguer::theme::ColorfulTheme;
use dialoguer::{Confirm, Input, MultiSelect, Select};
use serde_json::{Map, Value, json};

/// Columns that a question leaves to its answer, if it can: of what takes more than a line, one line alone is cleared. A
/// description that is too long for that stands before its question.
const ROOM: usize = 50;

/// What the questions are made of.
pub struct Facts<'a> {
    /// The plugin.
    pub plugin: &'a Plugin,
    /// The same, as a resource.
    pub resource: &'a TriggerPlugin,
    /// Its parameters.
    pub parameters: &'a Parameters,
    /// Secrets that the plugin may use.
    pub secrets: &'a [String],
    /// The workspace.
    pub namespace: &'a str,
}

/// Asks for what no flag has said.
///
/// # Errors
/// [`Exit::Interrupted`], or the terminal cannot be used.
pub fn ask(draft: &mut Draft, facts: &Facts<'_>) -> anyhow::Result<()> {
    let title = clean(&facts.resource.spec.display_name);
    eprintln!("A Subscription to {title}, in the namespace {}.", facts.namespace);
    if draft.name.is_none() {
        draft.name = Some(name(facts.plugin.name())?);
    }
    for name in facts.parameters.names() {
        if !draft.parameters.contains_key(name)
            && let Some(value) = parameter(name, facts)?
        {
            draft.parameters.insert(name.to_owned(), value);
        }
    }
    if draft.events.is_none() {
        draft.events = events(facts)?;
    }
    if draft.authorization.is_none() {
        draft.authorization = Some(authorization(facts)?);
    }
    Ok(())
}

/// Asks whether the manifest that was shown is to be applied.
///
/// # Errors
/// As [`ask`].
pub fn confirm_apply(namespace: &str) -> anyhow::Result<bool> {
    let prompt = format!("Apply it to the namespace {namespace}?");
    let asked = Confirm::with_theme(&theme()).with_prompt(prompt).default(false).interact_on(&Term::stderr());
    answered(asked)
}

fn name(plugin: &str) -> anyhow::Result<String> {
    let theme = theme();
    let input = Input::<String>::with_theme(&theme).with_prompt("Name of the Subscription").default(plugin.to_owned());
    answered(input.validate_with(|name: &String| check_name(name)).interact_text_on(&Term::stderr()))
}

/// The rule for names of objects (RFC 1123), so that a wrong one is told at once.
fn check_name(name: &str) -> Result<(), &'static str> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let ends = name.starts_with(['-', '.']) || name.ends_with(['-', '.']);
    if !name.is_empty() && name.len() <= 253 && name.chars().all(inner) && !ends {
        Ok(())
    } else {
        Err("lower-case letters, digits, - and . only, and a letter or a digit at both ends")
    }
}

fn parameter(name: &str, facts: &Facts<'_>) -> anyhow::Result<Option<Value>> {
    let schema = facts.parameters.schema(name);
    let required = facts.parameters.required().iter().any(|one| one == name);
    let mut prompt = prompt(name, &schema, required);
    let columns = usize::from(Term::stderr().size().1);
    if let Some((question, description)) = prompt.split_once(": ")
        && console::measure_text_width(&prompt) + ROOM > columns
    {
        eprintln!("{description}");
        prompt = question.to_owned();
    }
    let theme = theme();
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        let mut labels: Vec<String> = choices.iter().map(|one| clean(&spelt(one))).collect();
        if !required {
            labels.push("(left out)".to_owned());
        }
        let select = Select::with_theme(&theme).with_prompt(prompt).items(&labels).default(0);
        return Ok(choices.get(answered(select.interact_on(&Term::stderr()))?).cloned());
    }
    let check = |text: &String| -> Result<(), String> {
        if text.is_empty() && !required { Ok(()) } else { fits(name, &schema, text, facts.plugin).map(drop) }
    };
    let mut input = Input::<String>::with_theme(&theme).with_prompt(prompt).allow_empty(!required).validate_with(check);
    if let Some(default) = schema.get("default") {
        input = input.default(spelt(default));
    }
    let text = answered(input.interact_text_on(&Term::stderr()))?;
    if text.is_empty() && !required {
        return Ok(None);
    }
    fits(name, &schema, &text, facts.plugin).map(Some).map_err(|wrong| Exit::Usage(wrong).into())
}

/// Reads a value, and checks it alone: what is wrong with others is not said here.
fn fits(name: &str, schema: &Map<String, Value>, text: &str, plugin: &Plugin) -> Result<Value, String> {
    let value = read(schema, text)?;
    let alone = Map::from_iter([(name.to_owned(), value.clone())]);
    let field = format!("spec.parameters.{name}");
    let mistakes = plugin.check_parameters(&alone).err().unwrap_or_default();
    match mistakes.iter().find(|mistake| mistake.field.starts_with(&field)) {
        Some(mistake) => Err(clean(&mistake.problem)),
        None => Ok(value),
    }
}

fn prompt(name: &str, schema: &Map<String, Value>, required: bool) -> String {
    let description = schema.get("description").and_then(Value::as_str);
    let description = description.map(|text| format!(": {text}")).unwrap_or_default();
    let optional = if required { "" } else { ", may be left empty" };
    clean(&format!("{name} ({}{optional}){description}", type_of(schema)))
}

fn spelt(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn events(facts: &Facts<'_>) -> anyhow::Result<Option<Vec<String>>> {
    let all = &facts.resource.spec.events;
    let theme = theme();
    let prompt = format!("Subscribe to all {} events? (recommended: each WorkflowTrigger chooses its own)", all.len());
    let confirm = Confirm::with_theme(&theme).with_prompt(prompt).default(true);
    if all.len() == 1 || answered(confirm.interact_on(&Term::stderr()))? {
        return Ok(None);
    }
    let labels: Vec<_> = all.iter().map(|event| clean(&format!("{}   {}", event.name, event.title))).collect();
    loop {
        let select = MultiSelect::with_theme(&theme).with_prompt("Which? (space chooses, return ends)").items(&labels);
        let chosen = answered(select.interact_on(&Term::stderr()))?;
        if !chosen.is_empty() {
            return Ok(Some(chosen.into_iter().filter_map(|at| all.get(at)).map(|one| one.name.clone()).collect()));
        }
        eprintln!("At least one.");
    }
}

fn authorization(facts: &Facts<'_>) -> anyhow::Result<Value> {
    let offers = facts.plugin.offers();
    let keys = facts.plugin.credential_keys().join(", ");
    let labels: Vec<_> = offers
        .iter()
        .map(|method| match *method {
            "apiKey" => format!("apiKey   credentials from a Secret with {}", clean(&keys)),
            "oauth2" => "oauth2   a person consents in a browser".to_owned(),
            _ => "manual   you make the webhook yourself".to_owned(),
        })
        .collect();
    let theme = theme();
    let select = Select::with_theme(&theme).with_prompt("How is it authorized?").items(&labels).default(0);
    let at = if offers.len() == 1 { 0 } else { answered(select.interact_on(&Term::stderr()))? };
    Ok(match offers.get(at).copied() {
        Some("apiKey") => {
            let name = secret("The Secret with the credentials", None, facts)?;
            json!({"apiKey": {"secretRef": {"name": name}}})
        }
        Some("oauth2") => match secret("The OAuth client", Some("the default client"), facts)? {
            None => json!({"oauth2": {}}),
            Some(name) => json!({"oauth2": {"clientSecretRef": {"name": name}}}),
        },
        // The external system shows the secret where the webhook is made, unless Bellhop may choose it.
        _ if facts.plugin.secret_source() == SecretSource::External => {
            let name = secret("The Secret with the signing secret", None, facts)?;
            json!({"manual": {"secretRef": {"name": name}}})
        }
        _ => match secret("The signing secret", Some("one that Bellhop makes"), facts)? {
            None => json!({"manual": {}}),
            Some(name) => json!({"manual": {"secretRef": {"name": name}}}),
        },
    })
}

/// The name of a Secret: one of those that carry the label, or another. `without` is offered where none is needed.
fn secret(prompt: &str, without: Option<&str>, facts: &Facts<'_>) -> anyhow::Result<Option<String>> {
    let theme = theme();
    let offset = usize::from(without.is_some());
    let mut labels: Vec<String> = without.map(str::to_owned).into_iter().collect();
    labels.extend(facts.secrets.iter().map(|name| format!("Secret {name}")));
    labels.push("a Secret with another name".to_owned());
    if labels.len() > 1 {
        let select = Select::with_theme(&theme).with_prompt(prompt).items(&labels).default(0);
        let at = answered(select.interact_on(&Term::stderr()))?;
        if at < offset {
            return Ok(None);
        }
        if let Some(name) = facts.secrets.get(at - offset) {
            return Ok(Some(name.clone()));
        }
    }
    let input = Input::<String>::with_theme(&theme).with_prompt(format!("{prompt}: its name"));
    let input = input.default(format!("{}-credentials", facts.plugin.name()));
    let name = answered(input.validate_with(|name: &String| check_name(name)).interact_text_on(&Term::stderr()))?;
    Ok(Some(name))
}

fn theme() -> ColorfulTheme {
    ColorfulTheme::default()
}

/// The answer. A question that was broken off by Ctrl-C has hidden the cursor.
fn answered<T>(answer: dialoguer::Result<T>) -> anyhow::Result<T> {
    answer.map_err(|dialoguer::Error::IO(error)| {
        let _ = Term::stderr().show_cursor();
        if error.kind() == std::io::ErrorKind::Interrupted { Exit::Interrupted.into() } else { error.into() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_prompts() {
        for good in ["acme-web", "a.b", "1"] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in ["", "Acme", "-a", "a-", "a b", &"a".repeat(254)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        let schema = json!({"type": "string", "format": "uri", "description": "Where\nit is"});
        let schema = schema.as_object().unwrap();
        assert_eq!(prompt("baseURL", schema, true), "baseURL (string (uri)): Where it is");
        assert_eq!(prompt("a", &Map::new(), false), "a (any, may be left empty)");
    }
}
