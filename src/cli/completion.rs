//! What shells complete: `bellhop completion` prints the script for a shell; kubectl asks a program by the name of
//! kubectl_complete-bellhop, which is this one, what it may offer behind `kubectl bellhop`.

use clap::builder::StyledStr;
use clap::{Arg, Command, ValueEnum};
use clap_complete::Shell;

/// A shell whose completion is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum For {
    Bash,
    Zsh,
    Fish,
    Powershell,
}

/// The script for `bellhop`. Behind `kubectl bellhop`, kubectl's own script does it.
pub fn script(shell: For, mut command: Command) -> Vec<u8> {
    let shell = match shell {
        For::Bash => Shell::Bash,
        For::Zsh => Shell::Zsh,
        For::Fish => Shell::Fish,
        For::Powershell => Shell::PowerShell,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "bellhop", &mut script);
    script
}

/// What may follow the words, of which the last one is still being typed: one a line, with a description behind a tab. The
/// last line asks for no file names, as the library that kubectl is built with (cobra) wants it said.
pub fn offers(mut command: Command, words: &[String]) -> String {
    command.build();
    let (last, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let mut at = &command;
    for word in before {
        at = at.find_subcommand(word).unwrap_or(at);
    }
    let line = |name: String, about: Option<&StyledStr>| {
        let about = about.map(ToString::to_string).unwrap_or_default();
        format!("{name}\t{}\n", about.lines().next().unwrap_or_default())
    };
    let valued = before.last().and_then(|word| at.get_arguments().find(|arg| is(arg, word)));
    let offers: Vec<String> = if let Some(option) = valued.filter(|option| option.get_action().takes_values()) {
        let values = option.get_possible_values();
        values.iter().map(|value| line(value.get_name().to_owned(), value.get_help())).collect()
    } else if last.starts_with('-') {
        let options = at.get_arguments().filter(|arg| !arg.is_hide_set());
        options.filter_map(|arg| Some(line(format!("--{}", arg.get_long()?), arg.get_help()))).collect()
    } else {
        let commands = at.get_subcommands().filter(|command| !command.is_hide_set());
        commands.map(|command| line(command.get_name().to_owned(), command.get_about())).collect()
    };
    let fitting = offers.into_iter().filter(|offer| offer.starts_with(last));
    fitting.chain([":4\n".to_owned()]).collect()
}

/// Whether the word is this option.
fn is(arg: &Arg, word: &str) -> bool {
    match word.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => word.strip_prefix('-').is_some_and(|short| arg.get_short().is_some_and(|one| one.to_string() == short)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PLUGIN, command};
    use super::*;

    #[test]
    fn kubectl_is_offered_commands_options_and_values() {
        let offered = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            offers(command(PLUGIN), &words)
        };
        assert_eq!(offered(&["stat"]), "status\tShow what is not Ready in a namespace, and why\n:4\n");
        assert!(offered(&[""]).contains("authorize\t") && !offered(&[""]).contains("controller\t"));
        assert!(offered(&["create", ""]).starts_with("subscription\t"), "{}", offered(&["create", ""]));
        assert_eq!(
            offered(&["create", "subscription", "gitea", "--api"]),
            "--api-key-secret\tAuthorize with credentials from this Secret of the namespace\n:4\n"
        );
        assert_eq!(
            offered(&["status", "-o", ""]),
            "json\tEverything, as JSON\nyaml\tEverything, as YAML\nname\tNames alone, one a line\n:4\n"
        );
        // What a namespace is called is not known here.
        assert_eq!(offered(&["status", "--namespace", ""]), ":4\n");
        assert_eq!(offered(&[]), offered(&[""]));
    }
}
