//! Field selectors: `subscription=acme-web,outcome!=Delivered`.

use super::entry::Entry;
use super::status::Refusal;

/// Fields that can be selected by, as people write them.
pub const FIELDS: [&str; 6] = ["metadata.name", "metadata.namespace", "subscription", "outcome", "event", "trigger"];
/// Most conditions of a selector.
const MAX_TERMS: usize = 16;
/// Longest value of a condition, in bytes: names in Kubernetes have 253 at most.
const MAX_VALUE: usize = 256;

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: &'static str,
    value: String,
    equal: bool,
}

/// Which requests are meant; all, if nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Term>);

impl Selector {
    /// Reads a selector as the API machinery writes it: terms `field=value`, `field==value` or `field!=value`, separated
    /// by commas; a backslash before `,`, `=` or a backslash of a value.
    ///
    /// # Errors
    /// 400: a term that cannot be read, or a field that cannot be selected by; the message names it.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let terms = split(text).into_iter().filter(|term| !term.is_empty());
        let terms: Vec<Term> = terms.map(|term| parse_term(&term)).collect::<Result<_, _>>()?;
        if terms.len() > MAX_TERMS {
            return Err(Refusal::bad_request(format!("fieldSelector: has more than {MAX_TERMS} conditions")));
        }
        Ok(Self(terms))
    }

    /// Whether a request is meant.
    pub fn matches(&self, entry: &Entry) -> bool {
        self.0.iter().all(|term| {
            let value = term.value.as_str();
            let is = match term.field {
                "metadata.name" => entry.name() == value,
                "metadata.namespace" => entry.namespace() == value,
                "subscription" => entry.subscription() == value,
                "outcome" => entry.outcome() == value,
                "event" => entry.event_names().any(|name| name == value),
                "trigger" => entry.trigger_names().any(|name| name == value),
                _ => false,
            };
            is == term.equal
        })
    }

    /// The value that a field must have, if the selector says one.
    pub fn value(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }

    /// What the ingress can select by itself, as pairs of a query.
    pub fn query(&self) -> impl Iterator<Item = (&'static str, &str)> {
        ["subscription", "outcome", "event", "trigger"].into_iter().filter_map(|name| Some((name, self.value(name)?)))
    }
}

/// At commas that no backslash stands before; backslashes stay.
fn split(text: &str) -> Vec<String> {
    let (mut terms, mut escaped) = (vec![String::new()], false);
    for character in text.chars() {
        match character {
            ',' if !escaped => terms.push(String::new()),
            _ => terms.last_mut().expect("there is one").push(character),
        }
        escaped = character == '\\' && !escaped;
    }
    terms
}

fn parse_term(term: &str) -> Result<Term, Refusal> {
    let wrong = |why: String| Refusal::bad_request(format!("fieldSelector: {term:?}: {why}"));
    let at = term.find(['=', '!']).ok_or_else(|| wrong("expected something like outcome=Refused".to_owned()))?;
    let (field, rest) = term.split_at(at);
    let (equal, value) = match (rest.strip_prefix("!="), rest.strip_prefix("=="), rest.strip_prefix('=')) {
        (Some(value), _, _) => (false, value),
        (_, Some(value), _) | (_, None, Some(value)) => (true, value),
        _ => return Err(wrong("expected =, == or != after the field".to_owned())),
    };
    let Some(field) = FIELDS.into_iter().find(|known| *known == field.trim()) else {
        return Err(wrong(format!("requests can be selected by {}", FIELDS.join(", "))));
    };
    // It is kept with what is asked about it.
    if value.len() > MAX_VALUE {
        return Err(Refusal::bad_request(format!("fieldSelector: a value has more than {MAX_VALUE} bytes")));
    }
    let (mut plain, mut escaped) = (String::new(), false);
    for character in value.chars() {
        match (escaped, character) {
            (false, '\\') => escaped = true,
            (true, '\\' | ',' | '=') | (false, _) => {
                plain.push(character);
                escaped = false;
            }
            (true, _) => return Err(wrong("a backslash stands before a comma, = or a backslash only".to_owned())),
        }
    }
    if escaped {
        return Err(wrong("ends with a backslash".to_owned()));
    }
    Ok(Term { field, value: plain, equal })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry() -> Entry {
        Entry(json!({
            "metadata": {"name": "0-a", "namespace": "team-a"}, "subscription": {"name": "web"}, "outcome": "Delivered",
            "events": [
                {"name": "push", "triggers": [{"name": "build"}, {"name": "lint"}]},
                {"name": "a,b=c", "triggers": []},
            ],
        }))
    }

    #[test]
    fn requests_are_selected_by_their_fields() {
        let selects = |text: &str| Selector::parse(text).unwrap().matches(&entry());
        for text in [
            "",
            "subscription=web",
            "subscription==web,outcome=Delivered",
            "event=push",
            "trigger=lint",
            "trigger=build,trigger=lint",
            "outcome!=Refused",
            "event=a\\,b\\=c",
            "metadata.name=0-a,metadata.namespace=team-a",
            "trigger!=other",
        ] {
            assert!(selects(text), "{text}");
        }
        for text in ["subscription=", "outcome=delivered", "event!=push", "trigger=other", "metadata.name!=0-a"] {
            assert!(!selects(text), "{text}");
        }
    }

    #[test]
    fn mistakes_say_what_would_be_right() {
        for (text, word) in [
            ("status=Failed", "subscription, outcome, event, trigger"),
            ("outcome", "expected something like"),
            ("outcome!Refused", "expected =, == or !="),
            ("event=a\\b", "backslash"),
            ("event=a\\", "backslash"),
        ] {
            let refusal = Selector::parse(text).unwrap_err();
            assert!(
                refusal.message().starts_with("fieldSelector: ") && refusal.message().contains(word),
                "{refusal:?}"
            );
        }
        assert!(Selector::parse(&"outcome=a,".repeat(MAX_TERMS + 1)).is_err());
    }

    #[test]
    fn the_ingress_is_asked_for_what_it_can_select() {
        let selector = Selector::parse("subscription=web,event!=push,metadata.name=0-a,trigger=t").unwrap();
        assert_eq!(selector.query().collect::<Vec<_>>(), [("subscription", "web"), ("trigger", "t")]);
    }
}
