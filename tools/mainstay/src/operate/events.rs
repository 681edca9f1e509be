//! `mainstay events`.

use clap::Args;
use mainstay::meta::client::Meta;
use mainstay::meta::proto::Event;
use mainstay::meta::watch::WatchError;
use serde_json::json;

use super::connect::ConnectArgs;
use super::outcome::{Failed, Outcome};
use super::show::{self, date, printable};

/// Events asked for at a time.
const PAGE: usize = 500;

#[derive(Args)]
pub struct EventsArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Begin with this one instead of showing the last ones.
    #[arg(long, value_name = "NUMBER")]
    from: Option<u64>,
    /// Show so many at most.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u64,
    /// Go on with what happens, until interrupted.
    #[arg(long)]
    follow: bool,
    /// Print each as a line of JSON.
    #[arg(long)]
    json: bool,
}

/// Does it.
pub async fn run(args: &EventsArgs) -> Result<Outcome, Failed> {
    let meta = args.connect.meta(None)?;
    let cluster = meta.members().cluster().await?;
    let last_ones = cluster.next_event.saturating_sub(args.limit).max(cluster.first_event);
    let mut next = args.from.unwrap_or(last_ones).max(1);
    let end = cluster.next_event.min(next.saturating_add(args.limit));
    let mut events: Vec<Event> = Vec::new();
    while next < end {
        let wanted = usize::try_from(end - next).unwrap_or(PAGE).min(PAGE);
        let page = meta.events().list(next, wanted).await?;
        let Some(last) = page.last() else { break };
        next = last.sequence + 1;
        events.extend(page);
    }
    show_all(&events, args.json)?;
    match args.follow {
        true => follow(&meta, next, args.json).await,
        false => Ok(Outcome::Done),
    }
}

fn show_all(events: &[Event], json: bool) -> Result<(), Failed> {
    if json {
        return events.iter().try_for_each(|event| Ok(show::json(&object(event))?));
    }
    let rows = events.iter().map(|event| {
        let [time, number, kind, subject, detail, who, why] = words(event);
        vec![time, number, kind, subject, detail, who, why]
    });
    Ok(show::line(show::table(&["time", "event", "what", "of", "detail", "who", "why"], &[1], rows))?)
}

async fn follow(meta: &Meta, from: u64, json: bool) -> Result<Outcome, Failed> {
    let mut follow = meta.events().follow(from);
    loop {
        let event = match follow.next().await {
            Ok(event) => event,
            Err(WatchError::Unreachable { why }) => {
                eprintln!("mainstay: trying on: no node can be followed: {}", printable(why.as_bytes()));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match json {
            true => show::json(&object(&event))?,
            false => show::line(words(&event).join("  ").trim_end())?,
        }
    }
}

/// What happened, in a few words.
fn kind(event: &Event) -> String {
    let name = event.kind().as_str_name();
    name.strip_prefix("EVENT_KIND_").unwrap_or(name).to_lowercase().replace('_', " ")
}

fn words(event: &Event) -> [String; 7] {
    let text = |text: &str| printable(text.as_bytes());
    [
        date(event.unix_ms),
        event.sequence.to_string(),
        kind(event),
        text(&event.subject),
        text(&event.detail),
        text(&event.actor),
        text(&event.reason),
    ]
}

fn object(event: &Event) -> serde_json::Value {
    json!({
        "event": event.sequence, "index": event.index, "unix_ms": event.unix_ms, "kind": kind(event),
        "subject": event.subject, "detail": event.detail, "actor": event.actor, "reason": event.reason,
    })
}
