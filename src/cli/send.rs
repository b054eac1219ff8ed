//! `bellhop send`: tries the triggers of a Subscription with a request that the external system has not sent.

use super::client::Access;
use super::exit::Exit;
use super::explain::tree;
use super::output::{Format, Screen, clean, document, print};
use super::request_log::RequestLog;
use crate::config::duration;
use crate::log::model::{Outcome, Request};
use crate::log::sending::SendSpec;
use anyhow::Context;
use base64::Engine as _;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// The largest body that is read, in bytes; as base64 it is as large as the API takes.
const MAX_BODY: u64 = 2 * 1024 * 1024;
/// Pause between two looks at what came of a request.
const PAUSE: Duration = Duration::from_millis(300);

/// Options of `bellhop send`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct Options {
    /// The Subscription
    subscription: String,

    /// Send the plugin's sample of this event
    #[arg(long, value_name = "NAME", group = "what")]
    event: Option<String>,

    /// Send this file as the body, instead of the sample's; `-` is standard input
    #[arg(long, value_name = "FILE", group = "what")]
    body: Option<PathBuf>,

    /// Send this header, instead of the sample's of the same name; can be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,

    /// Send this query, instead of the sample's
    #[arg(long, value_name = "QUERY")]
    query: Option<String>,

    /// Wait until it was delivered or it is clear that it will not be, and tell its story
    #[arg(long)]
    wait: bool,

    /// How long to wait
    #[arg(long, default_value = "1m", value_parser = duration, value_name = "DURATION", requires = "wait")]
    timeout: Duration,

    /// Print a document, or the name of the request alone
    #[arg(short, long, value_enum)]
    output: Option<Format>,

    #[command(flatten)]
    access: Access,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

/// Sends, and waits if that is wished.
///
/// # Errors
/// It was not taken, and why; [`Exit::NotReady`] if it was waited for and did not start or was not delivered in time; the log
/// is not served, or the API server refused.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let spec = spec(options)?;
    let cluster = options.access.cluster().await?;
    let log = RequestLog::new(&cluster);
    let sent = log.send(&options.subscription, &spec).await?;
    if let Some(why) = &sent.unsigned {
        eprintln!("It was sent without a signature: {}", clean(why));
    }
    if !options.wait {
        print(&match options.output {
            None | Some(Format::Name) => format!("{}\n", clean(&sent.request)),
            Some(format) => document(format, &sent, std::slice::from_ref(&sent.request))?,
        })?;
        if options.output.is_none() {
            let namespace = clean(&cluster.namespace);
            eprintln!("What came of it: bellhop explain {} -n {namespace}", clean(&sent.request));
        }
        return Ok(());
    }
    let request = settled(&log, &sent.request, options.timeout).await?;
    print(&match options.output {
        None => tree(&request, Screen::stdout()).draw(),
        Some(format) => document(format, &request, std::slice::from_ref(&request.metadata.name))?,
    })?;
    match request.outcome {
        Outcome::Delivered | Outcome::Captured => Ok(()),
        outcome @ (Outcome::Received | Outcome::Pending) => {
            let seconds = options.timeout.as_secs();
            Err(Exit::NotReady(format!("it is still {} after {seconds}s", outcome.as_str())).into())
        }
        outcome => Err(Exit::NotReady(format!("its outcome is {}", outcome.as_str())).into()),
    }
}

/// What is to be sent.
fn spec(options: &Options) -> anyhow::Result<SendSpec> {
    let mut spec = SendSpec {
        event: options.event.clone(),
        headers: options.headers.iter().cloned().collect::<BTreeMap<_, _>>(),
        query: options.query.clone(),
        ..SendSpec::default()
    };
    if let Some(file) = &options.body {
        match String::from_utf8(read(file)?) {
            Ok(text) => spec.body = Some(text),
            Err(bytes) => spec.body_base64 = Some(base64::engine::general_purpose::STANDARD.encode(bytes.as_bytes())),
        }
    }
    Ok(spec)
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = || format!("--body {}", file.display());
    let mut body = Vec::new();
    // One byte more than allowed tells that there are more.
    match file == Path::new("-") {
        true => std::io::stdin().take(MAX_BODY + 1).read_to_end(&mut body).with_context(shown)?,
        false => {
            std::fs::File::open(file).and_then(|f| f.take(MAX_BODY + 1).read_to_end(&mut body)).with_context(shown)?
        }
    };
    if body.len() as u64 > MAX_BODY {
        return Err(Exit::Usage(format!("{}: is larger than {MAX_BODY} bytes", shown())).into());
    }
    Ok(body)
}

/// The request once nothing more is to be expected of it, or as it is after this time.
async fn settled(log: &RequestLog, name: &str, patience: Duration) -> anyhow::Result<Request> {
    let end = Instant::now() + patience;
    loop {
        let request = log.get(name).await?;
        if !matches!(request.outcome, Outcome::Received | Outcome::Pending) || Instant::now() >= end {
            return Ok(request);
        }
        tokio::time::sleep(PAUSE.min(end.saturating_duration_since(Instant::now()))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_pairs() {
        assert_eq!(header("X-Event=push"), Ok(("X-Event".to_owned(), "push".to_owned())));
        assert_eq!(header("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(header("X-Event: push").is_err());
    }

    #[test]
    fn bodies_are_text_or_base64_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("body");
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        assert_eq!(read(&file).unwrap(), [0xff, 0xfe]);
        std::fs::write(&file, vec![b'x'; usize::try_from(MAX_BODY).unwrap() + 1]).unwrap();
        let error = read(&file).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Exit::Usage(_))), "{error}");
        assert!(read(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
