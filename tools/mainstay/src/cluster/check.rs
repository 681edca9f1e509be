//! `mainstay cluster check`: whether all members hold the same of the metadata.

use std::cell::Cell;
use std::process::ExitCode;

use clap::Args;
use mainstay::cluster::operator::OperatorError;
use mainstay::cluster::proto::checked_member::Outcome;
use mainstay::cluster::proto::{CheckResponse, CheckedMember};
use serde_json::{Value, json};

use super::{ask, operator};
use crate::operate::{ConnectArgs, table};

/// A member differs, or nobody knows who is right.
const EXIT_DIFFERS: u8 = 6;

/// What help says of the exit status.
pub const EXIT_STATUS: &str = "\
Exit status: 0 all members that said what they hold hold the same; 1 failed: no node could be reached, none leads, or too few
members said; 2 wrong usage; 6 a member differs, or no majority agrees.";

#[derive(Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Print it as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Does it, and says how it went.
pub fn run(args: &CheckArgs) -> ExitCode {
    let differs = Cell::new(false);
    let ended = ask(async {
        let found = check(args).await?;
        differs.set(!is_consistent(&found));
        Ok(if args.json { format!("{}\n", object(&found)) } else { text(&found) })
    });
    if differs.get() { ExitCode::from(EXIT_DIFFERS) } else { ended }
}

async fn check(args: &CheckArgs) -> Result<CheckResponse, OperatorError> {
    operator(&args.connect)?.check().await
}

fn is_consistent(found: &CheckResponse) -> bool {
    let wrong = |member: &CheckedMember| !matches!(member.outcome(), Outcome::Same | Outcome::Unreached);
    !found.digest.is_empty() && !found.members.iter().any(wrong)
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Same => "same",
        Outcome::Differs => "differs",
        Outcome::Unreached => "unreached",
        Outcome::Undecided => "undecided",
        Outcome::Unspecified => "unknown",
    }
}

fn text(found: &CheckResponse) -> String {
    let count = |outcome: Outcome| found.members.iter().filter(|member| member.outcome() == outcome).count();
    let (same, differs, all) = (count(Outcome::Same), count(Outcome::Differs), found.members.len());
    let summary = match (found.digest.as_str(), differs) {
        ("", _) => "No majority of the members agrees: nobody knows which of them is right.".to_owned(),
        (_, 0) => format!("{same} of {all} members hold the same."),
        _ => format!("{differs} of {all} members differ from the majority; each gets a snapshot by itself."),
    };
    let row = |member: &CheckedMember| {
        let node = format!("{}{}", member.node, if member.is_learner { " (learner)" } else { "" });
        let hash = if member.digest.is_empty() { "-".to_owned() } else { member.digest.clone() };
        vec![node, word(member.outcome()).to_owned(), hash]
    };
    let rows = table(&["node", "state", "hash"], &[], found.members.iter().map(row));
    format!("As of entry {} of the metadata group:\n\n{rows}\n\n{summary}\n", found.index)
}

fn object(found: &CheckResponse) -> Value {
    let hash = |digest: &str| if digest.is_empty() { Value::Null } else { digest.into() };
    let member = |member: &CheckedMember| {
        json!({
            "node": member.node,
            "state": word(member.outcome()),
            "hash": hash(&member.digest),
            "is_learner": member.is_learner,
        })
    };
    json!({
        "index": found.index,
        "hash": hash(&found.digest),
        "is_consistent": is_consistent(found),
        "members": found.members.iter().map(member).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(digest: &str, outcomes: &[(Outcome, &str)]) -> CheckResponse {
        let member = |(node, (outcome, digest)): (u64, &(Outcome, &str))| CheckedMember {
            node,
            outcome: (*outcome).into(),
            digest: (*digest).to_owned(),
            is_learner: node == 3,
        };
        CheckResponse { index: 7, digest: digest.to_owned(), members: (1..).zip(outcomes).map(member).collect() }
    }

    #[test]
    fn each_member_is_shown_as_it_is() {
        let good = found("aa", &[(Outcome::Same, "aa"), (Outcome::Same, "aa"), (Outcome::Unreached, "")]);
        assert!(is_consistent(&good));
        let shown = text(&good);
        assert!(shown.starts_with("As of entry 7 of the metadata group:\n\nNODE"), "{shown}");
        assert!(shown.contains("\n3 (learner)  unreached  -\n"), "{shown}");
        assert!(shown.ends_with("\n\n2 of 3 members hold the same.\n"), "{shown}");
        let bad = found("aa", &[(Outcome::Same, "aa"), (Outcome::Differs, "bb"), (Outcome::Same, "aa")]);
        assert!(!is_consistent(&bad));
        assert!(text(&bad).ends_with("\n\n1 of 3 members differ from the majority; each gets a snapshot by itself.\n"));
        let shown = object(&bad);
        assert_eq!(
            (&shown["index"], &shown["hash"], &shown["is_consistent"]),
            (&7.into(), &"aa".into(), &false.into())
        );
        assert_eq!(shown["members"][1], json!({"node": 2, "state": "differs", "hash": "bb", "is_learner": false}));
        let undecided = found("", &[(Outcome::Undecided, "aa"), (Outcome::Undecided, "bb"), (Outcome::Unreached, "")]);
        assert!(!is_consistent(&undecided) && text(&undecided).contains("No majority"));
        assert_eq!(object(&undecided)["hash"], Value::Null);
    }
}
