//! A terminal for a command, with somebody who reads what is on it and types.

use crate::support::PATIENCE;
use anyhow::{Context, Result, bail, ensure};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// A pseudo-terminal with a command on it. Dropping it kills the command.
pub struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<String>>,
    /// Ends when everything was read that was written.
    reader: JoinHandle<()>,
    /// What was read already.
    read: usize,
    child: Child,
}

impl Terminal {
    /// Starts the command on a terminal of 120 columns.
    pub fn start(mut command: Command) -> Result<Terminal> {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&keyboard)?;
        unlockpt(&keyboard)?;
        tcsetwinsize(&keyboard, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 })?;
        let name = ptsname(&keyboard, Vec::new())?.into_string()?;
        let open = || File::options().read(true).write(true).open(&name);
        // The command switches to raw mode for each key that it waits for, and back. What is typed in between has to stay what it
        // is: a terminal that edits lines takes a backspace away.
        let side = open()?;
        let mut modes = tcgetattr(&side)?;
        let output = modes.output_modes;
        modes.make_raw();
        modes.output_modes = output;
        tcsetattr(&side, OptionalActions::Now, &modes)?;
        let child = command.env("TERM", "xterm").stdin(open()?).stdout(open()?).stderr(open()?).spawn()?;
        // The command is the only one that holds the other side from now on: when it ends, reading ends.
        drop((command, side));
        let keyboard = File::from(keyboard);
        let (mut output, screen) = (keyboard.try_clone()?, Arc::new(Mutex::new(String::new())));
        let shown = screen.clone();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                shown.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Ok(Terminal { keyboard, screen, reader, read: 0, child })
    }

    /// Waits until this text is shown, behind what was waited for before.
    pub async fn expect(&mut self, text: &str) -> Result<()> {
        let started = Instant::now();
        loop {
            let shown = self.shown();
            if let Some(at) = shown.get(self.read..).and_then(|rest| rest.find(text)) {
                self.read += at + text.len();
                return Ok(());
            }
            ensure!(started.elapsed() < PATIENCE, "{text:?} was not shown, but:\n{}", &shown[self.read..]);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Types.
    pub fn type_(&mut self, keys: &str) -> Result<()> {
        Ok(self.keyboard.write_all(keys.as_bytes())?)
    }

    /// Everything that was shown, with the sequences that steer a terminal.
    pub fn shown(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a person sees in the end: the lines of the screen, without the blanks at their ends.
    pub fn screen(&self) -> Vec<String> {
        let mut screen = Screen::default();
        let shown = self.shown();
        let mut chars = shown.chars();
        while let Some(char) = chars.next() {
            match char {
                '\r' => screen.column = 0,
                '\n' => screen.line += 1,
                '\u{8}' => screen.column = screen.column.saturating_sub(1),
                '\u{1b}' => {
                    let rest = chars.as_str();
                    let end = rest.find(|char: char| char.is_ascii_alphabetic()).map_or(rest.len(), |at| at + 1);
                    screen.steer(&rest[..end]);
                    chars = rest[end..].chars();
                }
                '\u{7}' => {}
                _ => screen.put(char),
            }
        }
        screen.lines.into_iter().map(|line| line.into_iter().collect::<String>().trim_end().to_owned()).collect()
    }

    /// The command's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the command has ended; gives its exit code.
    pub async fn end(&mut self) -> Result<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()?
                && self.reader.is_finished()
            {
                return status.code().with_context(|| format!("it ended with {status}"));
            }
            if started.elapsed() > PATIENCE {
                bail!("it does not end:\n{}", self.shown());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// Columns of the screen.
const WIDTH: usize = 120;

/// A screen that never scrolls.
#[derive(Default)]
struct Screen {
    lines: Vec<Vec<char>>,
    line: usize,
    column: usize,
}

impl Screen {
    fn put(&mut self, char: char) {
        if self.column == WIDTH {
            (self.line, self.column) = (self.line + 1, 0);
        }
        let line = self.current();
        let column = self.column;
        let line = &mut self.lines[line];
        if line.len() <= column {
            line.resize(column + 1, ' ');
        }
        line[column] = char;
        self.column += 1;
    }

    fn current(&mut self) -> usize {
        if self.lines.len() <= self.line {
            self.lines.resize(self.line + 1, Vec::new());
        }
        self.line
    }

    /// A sequence behind its escape character: where the next character goes, and what is cleared. Colours are none of it.
    fn steer(&mut self, sequence: &str) {
        let Some(parameter) = sequence.strip_prefix('[') else { return };
        let Some((at, command)) = parameter.char_indices().next_back() else { return };
        let number = parameter[..at].parse::<usize>().ok();
        let by = number.unwrap_or(1);
        match command {
            'A' => self.line = self.line.saturating_sub(by),
            'B' => self.line += by,
            'C' => self.column = (self.column + by).min(WIDTH),
            'D' => self.column = self.column.saturating_sub(by),
            'G' => self.column = by.saturating_sub(1),
            'K' => {
                let (line, column) = (self.current(), self.column);
                let from = if number == Some(2) { 0 } else { column };
                self.lines[line].truncate(from);
            }
            'J' => {
                let (line, column) = (self.current(), self.column);
                self.lines[line].truncate(column);
                self.lines.truncate(line + 1);
            }
            _ => {}
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
