//! Compares what all members hold of the metadata, for whoever asks: a consistency check of the metadata group.
//!
//! The leader does it; any other member passes the request on to it. It changes nothing where all agree. A member that
//! differs from the majority does not lead from then on, and gets a snapshot by itself
//! ([how](crate::raftstore::consistency)).

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::Status;

use super::core::Core;
use super::leading::{Hop, leader};
use super::peers::CallError;
use super::proto::{CheckRequest, CheckResponse, CheckedMember, checked_member};
use super::rpc::requests::patience_within;
use crate::ident::NodeId;
use crate::raftstore::consistency::{CheckRefusal, Verdict};
use crate::raftstore::entry::Membership;
use crate::raftstore::store::CheckError;

/// How long it may take in all, whoever asks.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Says what each member holds.
pub(super) async fn check(core: &Core, request: CheckRequest) -> Result<CheckResponse, Status> {
    let until = Instant::now() + patience_within(request.timeout_ms, CHECK_TIMEOUT);
    let leader = leader(core, until).await?;
    if leader != core.node() {
        return pass_on(core, leader, request, until).await;
    }
    let group = core.metadata.group();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match group.check_consistency(left).await {
            Ok(verdict) => return Ok(response(&verdict, &group.view().status.membership)),
            // Asked again it is found there.
            Err(CheckError::NotLeader { leader: Some(leader) }) if leader != core.node() => {
                return pass_on(core, leader, request, until).await;
            }
            Err(CheckError::NotLeader { .. } | CheckError::Busy) => {}
            // Of a leader that has just begun nobody has said so yet.
            Err(CheckError::Refused(CheckRefusal::NotKnown { .. })) if Instant::now() + RETRY_PAUSE < until => {}
            Err(CheckError::Refused(why)) => return Err(Status::failed_precondition(why.to_string())),
            Err(error) => return Err(Status::unavailable(error.to_string())),
        }
        if Instant::now() + RETRY_PAUSE >= until {
            return Err(Status::unavailable("the metadata group had too much to do, or no leader, to be checked"));
        }
        sleep(RETRY_PAUSE).await;
    }
}

async fn pass_on(core: &Core, to: NodeId, request: CheckRequest, until: Instant) -> Result<CheckResponse, Status> {
    let Hop { hops, limit, timeout_ms } = Hop::next(request.hops, until)?;
    core.peers.check(to, CheckRequest { timeout_ms, hops }, limit).await.map_err(|error| match error {
        CallError::Status(status) => *status,
        other => Status::unavailable(format!("node {to}, which leads, cannot be asked: {other}")),
    })
}

fn response(verdict: &Verdict, membership: &Membership) -> CheckResponse {
    let differing = verdict.differing();
    let member = |(replica, node): (&_, &NodeId)| {
        let digest = verdict.digests.get(replica);
        let outcome = match (digest, verdict.right) {
            (None, _) => checked_member::Outcome::Unreached,
            (Some(_), None) => checked_member::Outcome::Undecided,
            (Some(_), Some(_)) if differing.contains(replica) => checked_member::Outcome::Differs,
            (Some(_), Some(_)) => checked_member::Outcome::Same,
        };
        CheckedMember {
            node: node.get(),
            outcome: outcome.into(),
            digest: digest.map_or(String::new(), ToString::to_string),
            is_learner: membership.learners.contains(replica),
        }
    };
    CheckResponse {
        index: verdict.index.get(),
        digest: verdict.right.map_or(String::new(), |digest| digest.to_string()),
        members: membership.nodes.iter().map(member).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::{LogIndex, ReplicaId};
    use crate::raftstore::consistency::Digest;

    /// Replicas 1 to 4 on nodes 11 to 14, the last one a learner, with these states, of which one is right.
    fn outcomes(states: [Option<u8>; 4], right: Option<Digest>) -> Vec<(u64, i32, String, bool)> {
        let on = |replica: u64| (ReplicaId::new(replica), NodeId::new(replica + 10));
        let (learner, node) = on(4);
        let membership = Membership::of_voters((1..=3).map(on)).with_learner(learner, node);
        let digests = (1..)
            .zip(states)
            .filter_map(|(replica, state)| state.map(|state| (ReplicaId::new(replica), Digest::of_byte(state))));
        let verdict = Verdict { index: LogIndex::new(7), right, digests: digests.collect(), missing: Vec::new() };
        let CheckResponse { index, digest, members } = response(&verdict, &membership);
        assert_eq!((index, digest), (7, verdict.right.map_or(String::new(), |right| right.to_string())));
        members.into_iter().map(|it| (it.node, it.outcome, it.digest, it.is_learner)).collect()
    }

    #[test]
    fn each_member_is_named_with_what_it_holds() {
        use checked_member::Outcome::{Differs, Same, Undecided, Unreached};
        let hex = |state: u8| format!("{state:02x}").repeat(12);
        let row =
            |node, outcome: checked_member::Outcome, digest, is_learner| (node, i32::from(outcome), digest, is_learner);
        assert_eq!(
            outcomes([Some(1), Some(1), None, Some(2)], Some(Digest::of_byte(1))),
            [
                row(11, Same, hex(1), false),
                row(12, Same, hex(1), false),
                row(13, Unreached, String::new(), false),
                row(14, Differs, hex(2), true)
            ]
        );
        assert_eq!(
            outcomes([Some(1), Some(2), Some(3), None], None),
            [
                row(11, Undecided, hex(1), false),
                row(12, Undecided, hex(2), false),
                row(13, Undecided, hex(3), false),
                row(14, Unreached, String::new(), true)
            ]
        );
    }
}
