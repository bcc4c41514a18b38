//! Containments and grants that wait for people: what they would touch, who decides, what becomes of those that nobody answers.

use super::{Shared, lock};
use crate::audit::Kind;
use crate::exit_code::Result;
use crate::governance::{Access, Approvals, Asked, Contain, Containment, Request, RequestState};
use crate::policy::approval::{Approvals as Rules, Unanswered};
use crate::policy::spiffe::SpiffeId;
use crate::state::Author;
use crate::view::event;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;

impl Shared {
    /// What has to be approved; nothing where no gateway document says so.
    pub(super) fn approval_rules(&self) -> Option<Rules> {
        self.with_state(|state| state.documents().gateway.as_ref()?.approvals.clone())
    }

    /// Asks people, which is recorded first, and tells of it.
    pub(super) fn ask(&self, asked: Asked, rules: &Rules, by: &Author) -> Result<Request> {
        let mut approvals = lock(&self.approvals);
        approvals.make_room()?;
        let request = approvals.draft(asked, rules, Timestamp::now());
        let what = json!({"over": request.over, "radius": request.radius, "approvers": request.approvers});
        self.record_approval(&request, "asked", by, what)?;
        approvals.keep(request.clone())?;
        drop(approvals);
        tracing::warn!("approval {} is asked for: {}; {}", request.id, request.why, request.over);
        self.hub.send(event::approval_json(&request));
        Ok(request)
    }

    /// Why a containment of the loop has to wait for people, who are asked where nobody has been; nothing where it need not.
    pub(super) fn awaits(&self, finding: u64, contain: &Contain, why: &str) -> Result<Option<String>> {
        let Contain { identity: id, number, step } = contain;
        let Some(rules) = self.approval_rules() else { return Ok(None) };
        let asked = lock(&self.approvals).asked(id, finding).map(Request::holds);
        if asked.is_some() {
            return Ok(asked);
        }
        let radius = self.radius(id)?;
        let Some(over) = rules.exceeded(&radius) else { return Ok(None) };
        let by = Author::daemon(format!("finding {finding}"));
        let asked = Asked {
            by: by.who.to_string(),
            identity: id.clone(),
            act: step.act.clone(),
            step: *number,
            access: None,
            seconds: step.seconds,
            finding: Some(finding),
            why: why.to_owned(),
            over,
            radius,
        };
        self.ask(asked, &rules, &by).map(|request| Some(request.holds()))
    }

    /// Every request.
    pub(super) fn requests(&self) -> Vec<Request> {
        lock(&self.approvals).all().cloned().collect()
    }

    /// One of them.
    pub(super) fn request(&self, id: u64) -> Result<Request> {
        lock(&self.approvals).get(id).cloned()
    }

    /// Somebody agrees. The last one who has to has it done.
    pub(super) fn approve(&self, id: u64, by: &Author) -> Result<Request> {
        let mut approvals = lock(&self.approvals);
        let mut request = approvals.get(id)?.clone();
        let now = Timestamp::now();
        let is_enough = request.agree(&by.who.to_string(), now)?;
        let what = json!({"agreed": request.agreed, "of": request.approvers});
        self.record_approval(&request, "approved", by, what)?;
        if is_enough {
            request.state = self.do_asked(&request, by, now)?;
        }
        approvals.keep(request.clone())?;
        drop(approvals);
        self.told(&request);
        Ok(request)
    }

    /// Somebody says no.
    pub(super) fn reject(&self, id: u64, note: Option<String>, by: &Author) -> Result<Request> {
        let mut approvals = lock(&self.approvals);
        let mut request = approvals.get(id)?.clone();
        let who = by.who.to_string();
        request.may_decide(&who)?;
        self.record_approval(&request, "rejected", by, json!({"note": note}))?;
        request.state = RequestState::Rejected { at: Timestamp::now(), by: who, note };
        approvals.keep(request.clone())?;
        drop(approvals);
        self.told(&request);
        Ok(request)
    }

    /// Takes back what a finding asked of people, since somebody has decided about the finding itself.
    pub(super) fn withdraw_requests(&self, finding: u64, by: &Author) -> Result<()> {
        let mut approvals = lock(&self.approvals);
        let waiting = approvals.waiting_for(finding);
        waiting.into_iter().try_for_each(|request| self.withdraw_request(&mut approvals, request, by))
    }

    fn withdraw_request(&self, approvals: &mut Approvals, mut request: Request, by: &Author) -> Result<()> {
        self.record_approval(&request, "withdrawn", by, json!({}))?;
        request.state = RequestState::Withdrawn { at: Timestamp::now(), by: by.who.to_string() };
        approvals.keep(request.clone())?;
        self.told(&request);
        Ok(())
    }

    /// Does with requests that nobody answered in time what the gateway document said when they were made.
    pub(super) fn let_approvals_lapse(&self) -> Result<()> {
        let now = Timestamp::now();
        let overdue = lock(&self.approvals).overdue(now);
        overdue.into_iter().try_for_each(|id| self.lapse(id, now))
    }

    fn lapse(&self, id: u64, now: Timestamp) -> Result<()> {
        let mut approvals = lock(&self.approvals);
        let mut request = approvals.get(id)?.clone();
        if !request.waits() {
            return Ok(()); // somebody was quicker
        }
        let author = Author::daemon(format!("approval {} was not answered", request.id));
        if request.finding.is_some_and(|finding| self.governance.is_decided(finding, now)) {
            return self.withdraw_request(&mut approvals, request, &author);
        }
        let does = match request.unanswered {
            // The brake holds what nobody decided, and it is asked again in a second.
            Unanswered::Contain if self.governance.is_held(now) => return Ok(()),
            Unanswered::Contain => "done",
            Unanswered::Reject => "not done",
        };
        let what = json!({"it_is": does, "agreed": request.agreed});
        self.record_approval(&request, "lapsed", &author, what)?;
        request.state = match request.unanswered {
            Unanswered::Contain => self.do_asked(&request, &author, now)?,
            Unanswered::Reject => RequestState::Lapsed { at: now },
        };
        approvals.keep(request.clone())?;
        drop(approvals);
        self.told(&request);
        Ok(())
    }

    /// Why a grant by hand has to wait for people, and by which rules; nothing where it need not.
    pub(super) fn grant_awaits(&self, to: &SpiffeId, seconds: u64) -> Option<(Rules, String)> {
        self.with_state(|state| {
            let rules = state.documents().gateway.as_ref()?.approvals.as_ref()?;
            let why = rules.grants.as_ref()?.awaits(state.documents(), to, seconds)?;
            Some((rules.clone(), why))
        })
    }

    fn do_asked(&self, request: &Request, by: &Author, now: Timestamp) -> Result<RequestState> {
        let until = request.until(now);
        let author = Author { who: by.who.clone(), how: format!("approval {}", request.id).into() };
        if let Some(Access { to, ports }) = request.access.clone() {
            let reason =
                format!("{} (approval {}, asked for by {})", request.why, request.id, request.asked_by);
            let ends = (request.identity.clone(), to);
            let revision = self.give(ends, ports, until, reason, &author)?;
            return Ok(RequestState::Approved { at: now, until, revision });
        }
        let reason = crate::governance::reason(request);
        let revision = self.act_until(&request.identity, &request.act, &reason, (now, until), &author)?;
        if let Some(finding) = request.finding {
            let (identity, act, step) = (request.identity.clone(), request.act.name(), request.step);
            let by_people = request.agreed.len() >= request.approvers as usize;
            let (at, undone) = (now, false);
            let done = Containment { identity, act, step, at, until, revision, by_people, undone };
            self.governance.contained(finding, done);
        }
        Ok(RequestState::Approved { at: now, until, revision })
    }

    fn told(&self, request: &Request) {
        // What was done, or needs no answer, holds nothing back.
        let is_past = matches!(request.state, RequestState::Approved { .. } | RequestState::Withdrawn { .. });
        if let (Some(finding), false) = (request.finding, is_past) {
            self.governance.hold_back(finding, request.holds());
        }
        self.hub.send(event::approval_json(request));
    }

    /// Records a word about a request, with all that says which one it is: years later there is nothing else to look it up in.
    fn record_approval(&self, request: &Request, decision: &str, by: &Author, more: Value) -> Result<()> {
        let mut what = json!({
            "approval": request.id, "decision": decision, "asked_by": request.asked_by, "why": request.why,
            "finding": request.finding, "act": request.access.is_none().then(|| request.act.to_string()),
            "access": request.access, "seconds": request.seconds,
        });
        if let (Value::Object(what), Value::Object(more)) = (&mut what, more) {
            what.extend(more);
        }
        self.record_about(Kind::Approval, by, BTreeSet::from([request.identity.to_string()]), what)
    }
}
