//! How commands print: text for people, with colours and columns on a terminal alone, or documents for programs.

pub use super::clean::{clean, steers};
use console::Style;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// What is printed instead of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Everything, as JSON
    Json,
    /// Everything, as YAML
    Yaml,
    /// Names alone, one a line
    Name,
}

/// Where text is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// Somebody reads it: columns are aligned and have a header, and messages are wrapped. Otherwise columns are separated
    /// by tabs, for `cut` and `awk`.
    pub terminal: bool,
    /// With colours.
    pub colours: bool,
    /// Columns of a line.
    pub width: usize,
}

impl Screen {
    /// Standard output as it is now. Colours are for terminals, unless NO_COLOR has a value.
    pub fn stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let is = |name: &str, test: fn(&str) -> bool| std::env::var(name).is_ok_and(|value| test(&value));
        let plain = is("NO_COLOR", |value| !value.is_empty()) || is("TERM", |value| value == "dumb");
        let width = console::Term::stdout().size_checked().map_or(120, |(_, columns)| usize::from(columns));
        // Less than this is a terminal that does not know its size.
        Self { terminal, colours: terminal && !plain, width: if width < 40 { 120 } else { width } }
    }

    /// The text in a tone.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let style = match tone {
            Tone::Plain => return text.to_owned(),
            _ if !self.colours => return text.to_owned(),
            Tone::Good => Style::new().green(),
            Tone::Bad => Style::new().red(),
            Tone::Warn => Style::new().yellow(),
            Tone::Faint => Style::new().dim(),
            Tone::Strong => Style::new().bold(),
        };
        style.force_styling(true).apply_to(text).to_string()
    }
}

/// What a text is, for those who see colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Tone {
    Plain,
    Good,
    Bad,
    Warn,
    Faint,
    Strong,
}

/// A field of a table.
#[derive(Clone, Debug)]
pub struct Cell(pub String, pub Tone);

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell(text.into(), Tone::Plain)
    }
}

/// Rows in columns. The last column is not padded.
pub fn table(screen: Screen, header: &[&str], rows: &[Vec<Cell>]) -> String {
    let rows: Vec<Vec<Cell>> =
        rows.iter().map(|row| row.iter().map(|Cell(text, tone)| Cell(clean(text), *tone)).collect()).collect();
    if !screen.terminal {
        let line = |row: &Vec<Cell>| row.iter().map(|cell| cell.0.as_str()).collect::<Vec<_>>().join("\t") + "\n";
        return rows.iter().map(line).collect();
    }
    let header: Vec<Cell> = header.iter().map(|text| Cell((*text).to_owned(), Tone::Faint)).collect();
    let mut widths = vec![0; header.len()];
    for row in rows.iter().chain([&header]) {
        for (width, Cell(text, _)) in widths.iter_mut().zip(row) {
            *width = (*width).max(console::measure_text_width(text));
        }
    }
    [&header].into_iter().chain(&rows).map(|row| columns(screen, &widths, row)).collect()
}

/// One line with columns of these widths, three spaces apart. What is wider moves the others.
pub fn columns(screen: Screen, widths: &[usize], row: &[Cell]) -> String {
    let mut line = String::new();
    for (at, Cell(text, tone)) in row.iter().enumerate() {
        line.push_str(&screen.paint(*tone, text));
        if at + 1 < row.len() {
            let missing = widths.get(at).unwrap_or(&0).saturating_sub(console::measure_text_width(text));
            line.push_str(&" ".repeat(missing + 3));
        }
    }
    format!("{}\n", line.trim_end())
}

/// Lines of at most `width` columns; a longer word, such as a link, stays whole.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if console::measure_text_width(line) + 1 + console::measure_text_width(word) <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// At most so many characters, the last one `…` where some are missing.
pub fn shorten(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length.saturating_sub(1)).chain(['…']).collect()
}

/// How long ago, as kubectl writes it: `45s`, `12m`, `5h30m`, `3d`.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        ..120 => format!("{seconds}s"),
        120..7200 => format!("{minutes}m"),
        7200..36000 if minutes % 60 > 0 => format!("{hours}h{}m", minutes % 60),
        7200..172_800 => format!("{hours}h"),
        _ => format!("{days}d"),
    }
}

/// A document for programs; with `Name`, the names.
///
/// # Errors
/// Nothing that Bellhop's own types can do.
pub fn document<T: Serialize>(format: Format, value: &T, names: &[String]) -> anyhow::Result<String> {
    Ok(match format {
        Format::Json => escape(&serde_json::to_string_pretty(value)?) + "\n",
        Format::Yaml => serde_saphyr::to_string(value)?,
        Format::Name => names.iter().map(|name| format!("{name}\n")).collect(),
    })
}

/// A document of one line of JSON, for those that follow one another.
///
/// # Errors
/// As [`document`].
pub fn json_line<T: Serialize>(value: &T) -> anyhow::Result<String> {
    Ok(escape(&serde_json::to_string(value)?) + "\n")
}

/// The same JSON, without characters that a terminal would obey: outside of texts JSON has none, and in them each can be
/// written as an escape.
fn escape(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        // Line breaks between the fields are what is meant to be there.
        match c != '\n' && steers(c) {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escaped.push_str(&format!("\\u{unit:04x}"))),
            false => escaped.push(c),
        }
    }
    escaped
}

/// Prints to standard output, at once.
///
/// # Errors
/// It cannot be written to, for example because nobody reads it any more.
pub fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
pub mod screens {
    //! Screens for tests.
    use super::Screen;

    pub const PIPE: Screen = Screen { terminal: false, colours: false, width: 80 };
    pub const TERMINAL: Screen = Screen { terminal: true, colours: false, width: 80 };
    pub const COLOURS: Screen = Screen { terminal: true, colours: true, width: 80 };
}

#[cfg(test)]
mod tests {
    use super::screens::{COLOURS, PIPE, TERMINAL};
    use super::*;

    fn rows() -> Vec<Vec<Cell>> {
        vec![
            vec!["acme-web".into(), Cell("Ready".to_owned(), Tone::Good), "5m".into()],
            vec!["b".into(), Cell("CredentialsRefused".to_owned(), Tone::Bad), "\u{1b}[2J".into()],
        ]
    }

    #[test]
    fn a_terminal_gets_columns_a_pipe_tabs_and_colours_are_apart() {
        let header = ["NAME", "REASON", "FOR"];
        assert_eq!(
            table(TERMINAL, &header, &rows()),
            "NAME       REASON               FOR\n\
             acme-web   Ready                5m\n\
             b          CredentialsRefused   \\u{1b}[2J\n"
        );
        assert_eq!(table(PIPE, &header, &rows()), "acme-web\tReady\t5m\nb\tCredentialsRefused\t\\u{1b}[2J\n");
        assert_eq!(
            table(COLOURS, &header, &rows()),
            "\u{1b}[2mNAME\u{1b}[0m       \u{1b}[2mREASON\u{1b}[0m               \u{1b}[2mFOR\u{1b}[0m\n\
             acme-web   \u{1b}[32mReady\u{1b}[0m                5m\n\
             b          \u{1b}[31mCredentialsRefused\u{1b}[0m   \\u{1b}[2J\n"
        );
    }

    #[test]
    fn text_is_wrapped_between_words_and_shortened_at_characters() {
        assert_eq!((shorten("äöü", 3), shorten("äöüß", 3)), ("äöü".to_owned(), "äö…".to_owned()));
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("see https://hooks.example.com/x now", 10), ["see", "https://hooks.example.com/x", "now"]);
        assert_eq!(wrap("", 7), [""]);
    }

    #[test]
    fn ages_are_short() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (seconds, expected) in [
            (-5, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7199, "119m"),
            (9000, "2h30m"),
            (7200, "2h"),
            (90_000, "25h"),
            (864_000, "10d"),
        ] {
            assert_eq!(age(at(1_000_000), at(1_000_000 + seconds)), expected);
        }
    }

    #[test]
    fn what_was_sent_cannot_steer_the_terminal() {
        assert_eq!(clean("a\nb\tc\u{7}\u{9b}31m\u{202e}"), "a b c\\u{7}\\u{9b}31m\\u{202e}");
    }

    #[test]
    fn json_says_the_same_and_cannot_steer_the_terminal_either() {
        let sent = "a\n\u{7}\u{7f}\u{9b}31m\u{85}\u{202e}gpj.\u{2066}\u{200f}\u{61c}é😀\\u0041";
        let value = serde_json::json!({sent: [sent, 1]});
        let pretty = document(Format::Json, &value, &[]).unwrap();
        let line = json_line(&value).unwrap();
        for text in [&pretty, &line] {
            assert_eq!(serde_json::from_str::<serde_json::Value>(text).unwrap(), value);
            assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || steers(c))), "{text:?}");
            assert!(text.contains("\\u009b31m") && text.contains("\\u202egpj") && text.contains("é😀"), "{text}");
        }
        assert_eq!((line.lines().count(), pretty.lines().count()), (1, 6));
    }
}
