//! Where a field, and a place in an expression, are in their file.

use super::{Kind, Node};
use std::ops::Range;

/// What was found of a field.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// Its key; none for an entry of a list.
    pub key: Option<&'a Node>,
    /// Its value, or that of the deepest field above which is there.
    pub value: &'a Node,
    /// Whether it is the field itself.
    pub whole: bool,
}

impl Node {
    /// Looks for a field, written as in `spec.events[2].variables.ref.value`.
    pub fn find(&self, field: &str) -> Found<'_> {
        let mut found = Found { key: None, value: self, whole: true };
        let mut rest = field;
        while !rest.is_empty() {
            let (next, after) = match &found.value.kind {
                Kind::Map(entries) => {
                    let part = rest.strip_prefix('.').unwrap_or(rest);
                    // A key may itself have dots; the longest that fits is meant.
                    let fits = entries.iter().filter_map(|(key, value)| Some((key, value, after(part, key.text()?)?)));
                    match fits.min_by_key(|(_, _, after)| after.len()) {
                        Some((key, value, after)) => (Found { key: Some(key), value, whole: true }, after),
                        None => break,
                    }
                }
                Kind::List(items) => {
                    let index = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
                    let item = index.and_then(|(index, after)| Some((items.get(index.parse::<usize>().ok()?)?, after)));
                    match item {
                        Some((value, after)) => (Found { key: None, value, whole: true }, after),
                        None => break,
                    }
                }
                Kind::Scalar { .. } => break,
            };
            (found, rest) = (next, after);
        }
        found.whole = rest.is_empty();
        found
    }
}

/// What is left of a path behind a key that it begins with.
fn after<'a>(path: &'a str, key: &str) -> Option<&'a str> {
    path.strip_prefix(key).filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

impl Found<'_> {
    /// The key, if it is there.
    pub fn key_range(&self) -> Option<Range<usize>> {
        self.key.filter(|_| self.whole).map(|key| key.span.clone())
    }

    /// What to point at: a scalar's first line, or else the key, or the first line of what is there.
    pub fn range(&self, source: &str) -> Range<usize> {
        let node = match (self.key, &self.value.kind) {
            (_, Kind::Scalar { text, .. }) if self.whole && !text.is_empty() => self.value,
            (Some(key), _) => key,
            (None, Kind::Map(entries)) => entries.first().map_or(self.value, |(key, _)| key),
            (None, _) => self.value,
        };
        first_line(source, node.span.clone())
    }
}

/// The part of a range that is in its first line.
fn first_line(source: &str, range: Range<usize>) -> Range<usize> {
    let text = source.get(range.clone()).unwrap_or_default();
    let line = text.split('\n').next().unwrap_or_default().trim_end();
    range.start..range.start + line.len()
}

/// The place of a position in a scalar's text, line and column counted from 1, with the word that begins there. As a scalar is
/// written, it has quotes, escapes, indentation and folded lines that its text does not have; all these are passed over.
pub fn in_text(source: &str, scalar: &Node, line: usize, column: usize) -> Option<Range<usize>> {
    let text = scalar.text()?;
    let start: usize = text.split('\n').take(line.checked_sub(1)?).map(|line| line.chars().count() + 1).sum();
    let wanted = start + column.checked_sub(1)?;
    let written = source.get(scalar.span.clone())?;
    // The header of a block is not part of it.
    let header = if written.starts_with(['|', '>']) { written.find('\n')? + 1 } else { 0 };
    let mut places = written[header..].char_indices();
    let mut at = header;
    for (number, character) in text.chars().enumerate() {
        if character.is_whitespace() {
            continue;
        }
        at = header + places.find(|(_, written)| *written == character)?.0;
        if number >= wanted {
            break;
        }
    }
    let begin = scalar.span.start + at;
    let word = source[begin..]
        .chars()
        .take_while(|next| next.is_alphanumeric() || *next == '_')
        .map(char::len_utf8)
        .sum::<usize>();
    let first = source[begin..].chars().next().map_or(0, char::len_utf8);
    Some(begin..begin + word.max(first))
}

/// Line and column of a byte, both counted from 1, the column in characters.
pub fn line_and_column(source: &str, at: usize) -> (usize, usize) {
    let before = source.get(..at).unwrap_or(source);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    /// What is at a position of the expression of a field.
    fn at<'a>(source: &'a str, field: &str, line: usize, column: usize) -> (usize, usize, &'a str) {
        let (documents, _) = parse(source);
        let found = documents[0].find(field);
        assert!(found.whole, "{field}");
        let range = in_text(source, found.value, line, column).unwrap();
        let (line, column) = line_and_column(source, range.start);
        (line, column, &source[range])
    }

    #[test]
    fn positions_are_found_however_a_scalar_is_written() {
        assert_eq!(at("e: a + bcd", "e", 1, 5), (1, 8, "bcd"));
        assert_eq!(at("x:\n- e: 'a[''b''] + bcd'", "x[0].e", 1, 10), (2, 18, "bcd"));
        assert_eq!(at(r#"{"e": "a[\"b\"] + bcd"}"#, "e", 1, 10), (1, 19, "bcd"));
        assert_eq!(at("e: |\n  a\n   + bcd\nf: 1", "e", 2, 4), (3, 6, "bcd"));
        assert_eq!(at("e: |-\n  - a - bcd", "e", 1, 7), (2, 9, "bcd"));
        assert_eq!(at("e: >-\n  a\n  + bcd", "e", 1, 5), (3, 5, "bcd"));
        assert_eq!(at("e: a\n  + bcd", "e", 1, 5), (2, 5, "bcd"));
        assert_eq!(at("ä: 'ö + bcd'", "ä", 1, 5), (1, 9, "bcd"));
        // Behind the end is the end.
        assert_eq!(at("e: a +", "e", 1, 5).0, 1);
    }

    #[test]
    fn fields_are_found_and_missing_ones_below_the_deepest_that_is_there() {
        let source = "spec:\n  a.b: 1\n  list:\n  - c: {d: x}\n  - e\n";
        let (documents, _) = parse(source);
        let range = |field: &str| {
            let found = documents[0].find(field);
            (&source[found.range(source)], found.whole)
        };
        assert_eq!(range("spec.a.b"), ("1", true));
        assert_eq!(range("spec.list[0].c"), ("c", true));
        assert_eq!(range("spec.list[0].c.d"), ("x", true));
        assert_eq!(range("spec.list[1]"), ("e", true));
        assert_eq!(range("spec.list[0]"), ("c", true));
        assert_eq!(range("spec.list[7].x"), ("list", false));
        assert_eq!(range("spec.nothing"), ("spec", false));
        assert_eq!(range("metadata.name"), ("spec", false));
    }
}
