//! YAML with the place of everything in its file. Values are what kubectl makes of them.

mod position;
mod scalar;

pub use position::{in_text, line_and_column};

use serde_json::{Map, Value};
use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, Span};
use std::collections::HashMap;
use std::ops::Range;

/// Most nodes of a file. An alias counts as what it stands for, so that a small file cannot become a large one.
const NODES: usize = 200_000;
/// How deep lists and maps may lie in each other.
const DEEPEST: usize = 100;

/// A value, and where it is.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its bytes.
    pub span: Range<usize>,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// One value.
    Scalar {
        /// Its text.
        text: String,
        /// Whether it is neither quoted nor a block, so that it may be something else than a string.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// Keys and values, in their order.
    Map(Vec<(Node, Node)>),
}

/// What is wrong with a file as YAML.
#[derive(Clone, Debug, PartialEq)]
pub struct Broken {
    /// Where.
    pub span: Range<usize>,
    /// What.
    pub problem: String,
}

/// The documents of a file. Where it is broken, those that were read before; keys that are there twice are only told.
pub fn parse(source: &str) -> (Vec<Node>, Vec<Broken>) {
    let mut reader = Reader {
        source,
        open: Vec::new(),
        documents: Vec::new(),
        anchors: HashMap::new(),
        broken: Vec::new(),
        nodes: 0,
    };
    for event in Parser::new_from_str(source) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                let at = reader.offset(error.marker());
                reader.broken.push(Broken { span: at..at, problem: error.info() });
                break;
            }
        };
        let span = reader.range(span);
        if let Err(problem) = reader.take(event, span.clone()) {
            reader.broken.push(Broken { span, problem: problem.to_owned() });
            break;
        }
    }
    (reader.documents, reader.broken)
}

/// A list or a map that is not at its end.
struct Open {
    anchor: usize,
    node: Node,
    /// A map's key whose value comes next.
    key: Option<Node>,
}

struct Reader<'a> {
    source: &'a str,
    open: Vec<Open>,
    documents: Vec<Node>,
    anchors: HashMap<usize, Node>,
    broken: Vec<Broken>,
    nodes: usize,
}

impl Reader<'_> {
    fn offset(&self, marker: &Marker) -> usize {
        let counted = || self.source.char_indices().nth(marker.index()).map_or(self.source.len(), |(at, _)| at);
        marker.byte_offset().unwrap_or_else(counted).min(self.source.len())
    }

    fn range(&self, span: Span) -> Range<usize> {
        let start = self.offset(&span.start);
        start..self.offset(&span.end).max(start)
    }

    fn take(&mut self, event: Event<'_>, span: Range<usize>) -> Result<(), &'static str> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tagged = tag.is_some_and(|tag| tag.core_suffix() == Some("str"));
                let plain = style == ScalarStyle::Plain && !tagged;
                let node = Node { span, kind: Kind::Scalar { text: text.into_owned(), plain } };
                self.put(node, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.begin(Kind::List(Vec::new()), span, anchor),
            Event::MappingStart(_, anchor, _) => self.begin(Kind::Map(Vec::new()), span, anchor),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { anchor, mut node, .. }) = self.open.pop() else { return Ok(()) };
                node.span.end = span.end.max(node.span.start);
                self.put(node, anchor)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(mut node) => {
                    if matches!(node.kind, Kind::Scalar { .. }) {
                        node.span = span;
                    }
                    self.nodes = self.nodes.saturating_add(node.count());
                    self.put(node, 0)
                }
                None => Err("the anchor is not defined"),
            },
            _ => Ok(()),
        }
    }

    fn begin(&mut self, kind: Kind, span: Range<usize>, anchor: usize) -> Result<(), &'static str> {
        if self.open.len() >= DEEPEST {
            return Err("lists and maps lie too deep in each other");
        }
        self.open.push(Open { anchor, node: Node { span, kind }, key: None });
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), &'static str> {
        self.nodes += 1;
        if self.nodes > NODES {
            return Err("the file has too many values");
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(Open { node: parent, key, .. }) = self.open.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        match (&mut parent.kind, key.take()) {
            (Kind::List(items), _) => items.push(node),
            (Kind::Map(_), None) => *key = Some(node),
            (Kind::Map(entries), Some(key)) => {
                let name = key.text().unwrap_or_default();
                if name == "<<" && matches!(node.kind, Kind::Map(_)) {
                    merge(entries, node);
                    return Ok(());
                }
                if entries.iter().any(|(known, _)| known.text() == Some(name)) {
                    let problem = format!("the key `{name}` is there twice");
                    self.broken.push(Broken { span: key.span.clone(), problem });
                }
                entries.push((key, node));
            }
            (Kind::Scalar { .. }, _) => {}
        }
        Ok(())
    }
}

/// What a merge key (`<<`) brings, where the map does not say it itself.
fn merge(entries: &mut Vec<(Node, Node)>, merged: Node) {
    let Kind::Map(merged) = merged.kind else { return };
    for (key, value) in merged {
        if !entries.iter().any(|(known, _)| known.text() == key.text()) {
            entries.push((key, value));
        }
    }
}

impl Node {
    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value),
            _ => None,
        }
    }

    fn count(&self) -> usize {
        match &self.kind {
            Kind::Scalar { .. } => 1,
            Kind::List(items) => 1 + items.iter().map(Node::count).sum::<usize>(),
            Kind::Map(entries) => 1 + entries.iter().map(|(_, value)| 1 + value.count()).sum::<usize>(),
        }
    }

    /// The value as JSON.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Scalar { text, plain: true } => scalar::resolve(text),
            Kind::Scalar { text, plain: false } => Value::String(text.clone()),
            Kind::List(items) => items.iter().map(Node::to_json).collect(),
            Kind::Map(entries) => {
                let entries =
                    entries.iter().map(|(key, value)| (key.text().unwrap_or_default().to_owned(), value.to_json()));
                Value::Object(entries.collect::<Map<_, _>>())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_are_read_as_kubectl_reads_them() {
        let source =
            "a: {b: [1, 'x', null, 2.5]}\nc: |\n  text\nd: &e {f: on}\ng: *e\nh: {<<: *e, i: !!str 1}\n---\n- yes\n";
        let (documents, broken) = parse(source);
        assert_eq!(broken, []);
        let values: Vec<_> = documents.iter().map(Node::to_json).collect();
        let first = json!({
            "a": {"b": [1, "x", null, 2.5]}, "c": "text\n", "d": {"f": true}, "g": {"f": true}, "h": {"f": true, "i": "1"}
        });
        assert_eq!(values, [first, json!([true])]);
    }

    #[test]
    fn what_is_broken_has_a_place() {
        let told = |source: &str| {
            let (_, broken) = parse(source);
            broken
                .iter()
                .map(|broken| (line_and_column(source, broken.span.start), broken.problem.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(told("a: 1\nb: 2\na: 3\n"), [((3, 1), "the key `a` is there twice".to_owned())]);
        assert_eq!(told("a: 1\nb: [1\n")[0].0.0, 2);
        assert_eq!(told("a: *x\n").len(), 1);
        let laughs = (1..30)
            .fold("a0: &a0 [1, 1]\n".to_owned(), |text, n| text + &format!("a{n}: &a{n} [*a{0}, *a{0}]\n", n - 1));
        assert!(told(&laughs)[0].1.contains("too many"), "{:?}", told(&laughs));
        assert_eq!(told(&"[".repeat(500)).len(), 1);
    }
}
