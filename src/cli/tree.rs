//! Text as a tree.

/// A line with what belongs to it.
#[derive(Clone, Debug, Default)]
pub struct Node {
    text: String,
    children: Vec<Node>,
}

impl Node {
    /// A line alone.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), children: Vec::new() }
    }

    /// Adds something that belongs to it.
    pub fn add(&mut self, child: Node) {
        self.children.push(child);
    }

    /// The lines.
    pub fn draw(&self) -> String {
        let mut lines = format!("{}\n", self.text);
        self.draw_children("", &mut lines);
        lines
    }

    fn draw_children(&self, indent: &str, lines: &mut String) {
        for (at, child) in self.children.iter().enumerate() {
            let (branch, below) = if at + 1 == self.children.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            lines.push_str(&format!("{indent}{branch}{}\n", child.text));
            child.draw_children(&format!("{indent}{below}"), lines);
        }
    }
}
