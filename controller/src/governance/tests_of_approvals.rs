use super::{Approvals, Asked, Radius, Request, RequestState};
use crate::exit_code::Code;
use crate::policy::act::Act;
use crate::policy::approval::{Approvals as Rules, Thresholds, Unanswered};
use jiff::Timestamp;
use tempfile::tempdir;

fn rules(approvers: u32) -> Rules {
    Rules {
        over: Thresholds::default(),
        grants: None,
        approvers,
        within_s: 60,
        unanswered: Unanswered::Reject,
    }
}

fn asked(by: &str, finding: Option<u64>) -> Asked {
    Asked {
        by: by.into(),
        identity: "spiffe://a.example/orders".parse().unwrap(),
        act: Act::Quarantine,
        step: 0,
        access: None,
        seconds: 600,
        finding,
        why: "because".into(),
        over: "3 peers, more than 2".into(),
        radius: Radius { peers: 3, ..Radius::default() },
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn ask(approvals: &mut Approvals, asked: Asked, rules: &Rules) -> Request {
    approvals.make_room().unwrap();
    let request = approvals.draft(asked, rules, at(0));
    approvals.keep(request.clone()).unwrap();
    request
}

#[test]
fn so_many_different_people_agree_as_have_to_and_who_asked_is_none_of_them() {
    let folder = tempdir().unwrap();
    let mut approvals = Approvals::open(&folder.path().join("approvals.db")).unwrap();
    let mut request = ask(&mut approvals, asked("ann", None), &rules(2));
    let error = request.agree("ann", at(1)).unwrap_err();
    assert_eq!(error.code, Code::NotPermitted);
    assert_eq!(error.to_string(), "ann asked for approval 1: somebody else has to decide");
    assert!(!request.agree("bob", at(2)).unwrap(), "one more");
    let error = request.agree("bob", at(3)).unwrap_err();
    assert_eq!(error.code, Code::Conflict);
    assert!(error.to_string().contains("bob has agreed to approval 1 already: 1 more have to"), "{error}");
    assert!(request.agree("eve", at(4)).unwrap());
    request.state = RequestState::Approved { at: at(4), until: at(604), revision: 7 };
    let error = request.agree("joe", at(5)).unwrap_err();
    assert!(error.to_string().starts_with("approval 1 does not wait any more"), "{error}");
    assert_eq!(request.until(at(5)), at(605));
}

#[test]
fn what_became_of_a_request_outlives_the_daemon_and_keeps_the_loop_from_asking_again() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("approvals.db");
    let id = asked("", None).identity;
    let mut approvals = Approvals::open(&path).unwrap();
    let request = ask(&mut approvals, asked("the daemon", Some(4)), &rules(1));
    let holds = |approvals: &Approvals, finding| approvals.asked(&id, finding).map(Request::holds);
    assert_eq!(holds(&approvals, 4).as_deref(), Some("it waits for approval 1: 3 peers, more than 2"));
    assert_eq!(holds(&approvals, 5), None, "another finding is another question");
    assert_eq!((approvals.overdue(at(59)), approvals.overdue(at(60))), (vec![], vec![1]));
    drop(approvals);
    let mut approvals = Approvals::open(&path).unwrap();
    assert_eq!(approvals.get(1).unwrap(), &request);
    let state = RequestState::Rejected { at: at(9), by: "bob".into(), note: None };
    approvals.keep(Request { state, ..request.clone() }).unwrap();
    let approvals = Approvals::open(&path).unwrap();
    assert_eq!(holds(&approvals, 4).as_deref(), Some("approval 1 was refused by bob"));
    assert_eq!(approvals.overdue(at(60)), Vec::<u64>::new());
    let mut approvals = approvals;
    let state = RequestState::Approved { at: at(9), until: at(609), revision: 3 };
    approvals.keep(Request { state, ..request }).unwrap();
    assert_eq!(holds(&approvals, 4), None, "what was done and is over is asked for again");
    let error = approvals.get(2).unwrap_err();
    assert_eq!((error.code, error.to_string().as_str()), (Code::NotFound, "there is no approval 2"));
}
