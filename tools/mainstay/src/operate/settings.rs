//! `mainstay settings`.

use clap::Subcommand;
use mainstay::meta::proto::Setting;
use mainstay::meta::query::proto::Definition;
use serde_json::{Value, json};

use super::connect::{ActorArgs, ConnectArgs};
use super::outcome::{EXIT_STATUS, Failed, Outcome};
use super::show::{self, date, printable};

#[derive(Subcommand)]
pub enum SettingsAction {
    /// Show all settings: their values, defaults, ranges and meanings.
    #[command(after_help = EXIT_STATUS)]
    List {
        #[command(flatten)]
        connect: ConnectArgs,
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one setting.
    #[command(after_help = EXIT_STATUS)]
    Get {
        #[command(flatten)]
        connect: ConnectArgs,
        /// Its name.
        name: String,
        /// Show who changed it, when and why.
        #[arg(long)]
        history: bool,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Change a setting.
    #[command(after_help = EXIT_STATUS)]
    Set {
        #[command(flatten)]
        connect: ConnectArgs,
        #[command(flatten)]
        actor: ActorArgs,
        /// Its name.
        name: String,
        /// A number, or one with a unit, such as "512 MiB" or 1h.
        value: String,
    },
    /// Set a setting to its default.
    #[command(after_help = EXIT_STATUS)]
    Reset {
        #[command(flatten)]
        connect: ConnectArgs,
        #[command(flatten)]
        actor: ActorArgs,
        /// Its name.
        name: String,
    },
}

/// Does it.
pub async fn run(action: &SettingsAction) -> Result<Outcome, Failed> {
    match action {
        SettingsAction::List { connect, json } => list(connect, *json).await?,
        SettingsAction::Get { connect, name, history: true, json } => history(connect, name, *json).await?,
        SettingsAction::Get { connect, name, json, .. } => {
            let (setting, definition) = connect.meta(None)?.settings().describe(name).await?;
            match json {
                true => show::json(&object(&setting, &definition))?,
                false => show::line(printable(setting.value.as_bytes()))?,
            }
        }
        SettingsAction::Set { connect, actor, name, value } => {
            let setting = connect.meta(Some(actor))?.settings().set(name, value).await?;
            show::line(assignment(&setting))?;
        }
        SettingsAction::Reset { connect, actor, name } => {
            let setting = connect.meta(Some(actor))?.settings().reset(name).await?;
            show::line(assignment(&setting))?;
        }
    }
    Ok(Outcome::Done)
}

fn assignment(setting: &Setting) -> String {
    let default = if setting.is_default { " (default)" } else { "" };
    format!("{} = {}{default}", printable(setting.name.as_bytes()), printable(setting.value.as_bytes()))
}

async fn list(connect: &ConnectArgs, json: bool) -> Result<(), Failed> {
    let settings = connect.meta(None)?.settings().list().await?;
    if json {
        let all: Vec<_> = settings.iter().map(|(setting, definition)| object(setting, definition)).collect();
        return Ok(show::json(&Value::Array(all))?);
    }
    let rows = settings.iter().map(|(setting, definition)| {
        let value = printable(setting.value.as_bytes());
        vec![
            printable(setting.name.as_bytes()),
            if setting.is_default { value } else { format!("{value} *") },
            printable(definition.default.as_bytes()),
            printable(format!("{} to {}", definition.min, definition.max).as_bytes()),
            wrapped(&printable(definition.description.as_bytes())),
        ]
    });
    show::line(show::table(&["name", "value", "default", "range", "what it does"], &[], rows))?;
    if settings.iter().any(|(setting, _)| !setting.is_default) {
        show::line("\n* changed; `mainstay settings get NAME --history` shows by whom")?;
    }
    Ok(())
}

/// Text in lines of a readable length.
fn wrapped(text: &str) -> String {
    const WIDTH: usize = 60;
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() || line.len() + word.len() < WIDTH => {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

async fn history(connect: &ConnectArgs, name: &str, json: bool) -> Result<(), Failed> {
    let changes = connect.meta(None)?.settings().history(name).await?;
    if json {
        let change = |change: &mainstay::meta::proto::SettingChange| {
            json!({
                "index": change.index, "unix_ms": change.unix_ms, "actor": change.actor, "reason": change.reason,
                "value": change.value,
            })
        };
        return Ok(show::json(&Value::Array(changes.iter().map(change).collect()))?);
    }
    let rows = changes.iter().map(|change| {
        vec![
            date(change.unix_ms),
            change.value.as_ref().map_or("(default)".to_owned(), |value| printable(value.as_bytes())),
            printable(change.actor.as_bytes()),
            printable(change.reason.as_bytes()),
        ]
    });
    Ok(show::line(show::table(&["time", "value", "who", "why"], &[], rows))?)
}

fn object(setting: &Setting, definition: &Definition) -> Value {
    json!({
        "name": setting.name, "value": setting.value, "number": setting.number, "unit": definition.unit,
        "is_default": setting.is_default, "default": definition.default, "min": definition.min, "max": definition.max,
        "changes": setting.changes, "description": definition.description,
    })
}
