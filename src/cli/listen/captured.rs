//! What a draft has captured, and how it is shown.

use crate::cli::output::{Format, Screen, Tone, clean, document, json_line};
use crate::log::model::{Event, Request};
use serde::Serialize;
use serde_json::Value;

/// An event with the request that carried it.
pub struct Shown<'a> {
    /// The request.
    pub request: &'a Request,
    /// The event.
    pub event: &'a Event,
}

/// The events of a request that a draft has captured.
pub fn captured<'a>(request: &'a Request, trigger: &str) -> impl Iterator<Item = &'a Event> {
    let is_captured = move |event: &&Event| event.triggers.iter().any(|one| one.captured && one.name == trigger);
    request.events.iter().filter(is_captured)
}

/// The event as text or as a document. Documents follow one another: lines of JSON, or YAML with separators.
///
/// # Errors
/// As [`document`].
pub fn render(shown: &Shown<'_>, output: Option<Format>, screen: Screen) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Document<'a> {
        request: &'a str,
        event: &'a Event,
    }
    let name = shown.request.metadata.name.as_str();
    let whole = Document { request: name, event: shown.event };
    Ok(match output {
        Some(Format::Json) => json_line(&whole)?,
        Some(Format::Yaml) => format!("---\n{}", document(Format::Yaml, &whole, &[])?),
        Some(Format::Name) => format!("{name}\n"),
        None => text(shown, screen),
    })
}

fn text(shown: &Shown<'_>, screen: Screen) -> String {
    let Shown { request, event } = shown;
    let title = screen.paint(Tone::Strong, &clean(&event.name));
    let mut text = format!("{title}   {}   {}\n", clean(&request.received.time), clean(&request.metadata.name));
    let variables = event.variables.as_ref().and_then(Value::as_object);
    let width = variables.into_iter().flatten().map(|(name, _)| console::measure_text_width(name)).max().unwrap_or(0);
    for (name, value) in variables.into_iter().flatten() {
        let name = clean(name);
        let space = " ".repeat(width.saturating_sub(console::measure_text_width(&name)));
        text.push_str(&format!("  {name}{space}   {}\n", clean(&value.to_string())));
    }
    for note in &event.notes {
        text.push_str(&format!("  {}\n", screen.paint(Tone::Warn, &clean(note))));
    }
    text
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::cli::explain::tests::request;
    use crate::cli::output::screens::TERMINAL;

    #[test]
    fn a_captured_event_is_shown_with_its_variables() {
        let request = request();
        assert_eq!(captured(&request, "build").count(), 0, "it fired");
        let event = captured(&request, "try").next().unwrap();
        let shown = Shown { request: &request, event };
        assert_eq!(
            render(&shown, None, TERMINAL).unwrap(),
            "push   2026-01-01T10:00:00.123Z   0-5f000000-0000-4000-8000-000000000001\n\
             \x20 ref     \"refs/heads/main\"\n\
             \x20 title   \"a\\u001b[31mb\"\n\
             \x20 pusher: no such key: pusher\n"
        );
        let line = render(&shown, Some(Format::Json), TERMINAL).unwrap();
        let document: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((line.lines().count(), &document["event"]["variables"]["ref"]), (1, &"refs/heads/main".into()));
        assert!(render(&shown, Some(Format::Yaml), TERMINAL).unwrap().starts_with("---\nrequest: 0-5f"));
        assert_eq!(render(&shown, Some(Format::Name), TERMINAL).unwrap(), "0-5f000000-0000-4000-8000-000000000001\n");
    }
}
