use super::*;

fn at(millis: u64) -> Moment {
    Moment::new(Duration::from_millis(millis))
}

fn candidate(me: &str) -> Candidate {
    Candidate::new("belay-system".into(), "belay".into(), me.into())
}

fn record(holder: &str, epoch: u64, version: u64) -> Value {
    json!({
        "metadata": {"name": "belay", "resourceVersion": version.to_string(), "labels": {"kept": "yes"}},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 3, "leaseTransitions": epoch},
    })
}

/// What a pass that is decided now is told.
fn now(candidate: &mut Candidate, millis: u64) -> Step {
    let mut ticket = candidate.ticket();
    candidate.evaluate(&mut ticket, at(millis))
}

/// The candidate takes or renews the lease with a request from `sent` to `done`, and the server makes it `version`.
fn hold(candidate: &mut Candidate, sent: u64, done: u64, version: u64) -> Value {
    let step = if candidate.hold(at(sent)).is_some() { Step::Renew } else { Step::Acquire };
    let mut lease = candidate.request(step, Timestamp::UNIX_EPOCH).unwrap().body.unwrap();
    lease["metadata"]["resourceVersion"] = json!(version.to_string());
    candidate.answered(Purpose::Hold, at(sent), &Answer::Record(lease.clone()), at(done));
    lease
}

#[test]
fn the_first_looks_then_takes_and_writes_in_the_pass_that_it_decided() {
    let mut me = candidate("me");
    let mut ticket = me.ticket();
    assert_eq!(me.evaluate(&mut ticket, at(0)), Step::Look);
    me.answered(Purpose::Look, at(0), &Answer::Absent, at(5));
    assert_eq!(me.evaluate(&mut ticket, at(5)), Step::Acquire);
    let request = me.request(Step::Acquire, Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(request.method, http::Method::POST);
    assert_eq!(request.path, "/apis/coordination.k8s.io/v1/namespaces/belay-system/leases");
    let lease = hold(&mut me, 5, 9, 1);
    assert_eq!(lease["spec"]["leaseTransitions"], 1);
    assert!(matches!(me.evaluate(&mut ticket, at(9)), Step::Fine(h) if h.epoch == 1));
    assert_eq!(me.hold(at(2504)).map(|h| h.epoch), Some(1), "2.5 s from before the request was sent");
    assert_eq!(me.hold(at(2505)), None);
}

#[test]
fn what_others_put_into_the_lease_is_kept_and_the_version_is_the_guard() {
    let mut me = candidate("me");
    me.learn(Some(&record("", 4, 17)), at(0));
    let request = me.request(Step::Acquire, Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(request.method, http::Method::PUT);
    assert_eq!(
        request.body.unwrap(),
        json!({
            "metadata": {"name": "belay", "resourceVersion": "17", "labels": {"kept": "yes"}},
            "spec": {
                "holderIdentity": "me", "leaseDurationSeconds": 3, "leaseTransitions": 5,
                "acquireTime": "1970-01-01T00:00:00.000000Z", "renewTime": "1970-01-01T00:00:00.000000Z",
            },
        })
    );
}

#[test]
fn a_lease_that_was_given_back_is_taken_at_once_and_decided_anew() {
    let mut me = candidate("me");
    me.learn(Some(&record("other", 4, 17)), at(0));
    assert!(matches!(now(&mut me, 0), Step::Wait(_)));
    me.learn(Some(&record("", 4, 18)), at(10));
    let mut ticket = me.ticket();
    assert_eq!(me.evaluate(&mut ticket, at(10)), Step::Acquire);
    hold(&mut me, 10, 15, 19);
    assert_eq!(
        me.evaluate(&mut ticket, at(15)),
        Step::Lost,
        "the other's last writes may not have been seen"
    );
    assert!(matches!(now(&mut me, 15), Step::Fine(_)));
}

#[test]
fn a_lapsed_lease_is_left_to_its_last_holder_for_a_second() {
    let mut me = candidate("me");
    me.learn(Some(&record("other", 1, 1)), at(0));
    assert_eq!(now(&mut me, 100), Step::Wait(at(4000)), "the lapse comes later than the wish");
    me.learn(Some(&record("other", 1, 2)), at(1000));
    assert_eq!(now(&mut me, 3999), Step::Wait(at(5000)), "it was renewed");
    // It wants nothing for a while, then both want to write at the same moment.
    assert_eq!(now(&mut me, 60_000), Step::Wait(at(61_000)));
    assert_eq!(now(&mut me, 60_500), Step::Wait(at(61_000)), "the wish is as old as it was");
    me.learn(Some(&record("other", 2, 3)), at(60_600));
    assert_eq!(now(&mut me, 61_000), Step::Wait(at(64_600)), "the last holder was quicker");
    assert_eq!(now(&mut me, 64_600), Step::Acquire);
}

#[test]
fn seeing_a_record_again_or_an_older_one_changes_nothing() {
    let mut me = candidate("me");
    me.learn(Some(&record("other", 1, 9)), at(0));
    let before = me.clone();
    me.learn(Some(&record("other", 1, 9)), at(2000));
    me.learn(Some(&record("third", 1, 8)), at(2000));
    assert_eq!(me, before);
    let lease = {
        let mut mine = candidate("me");
        mine.learn(Some(&record("", 3, 10)), at(0));
        hold(&mut mine, 0, 1, 11);
        mine.learn(Some(&record("", 3, 10)), at(2));
        mine.hold(at(3))
    };
    assert!(lease.is_some(), "a watch that lags does not take the lease away");
}

#[test]
fn a_tenure_that_was_interrupted_does_not_go_on() {
    let mut me = candidate("me");
    me.learn(None, at(0));
    hold(&mut me, 0, 1, 1);
    let mut pass = me.ticket();
    assert!(matches!(me.evaluate(&mut pass, at(2)), Step::Fine(_)));
    let mut not_begun = me.ticket();
    // Stopped for a minute; nobody else wrote.
    assert_eq!(me.keep(1, at(60_000)), Step::Lost);
    assert_eq!(me.evaluate(&mut pass, at(60_000)), Step::Lost);
    assert_eq!(me.evaluate(&mut not_begun, at(60_000)), Step::Acquire);
    hold(&mut me, 60_000, 60_001, 2);
    assert_eq!(me.evaluate(&mut pass, at(60_001)), Step::Lost, "it is bound to the tenure that it wrote in");
    assert!(matches!(me.evaluate(&mut not_begun, at(60_001)), Step::Fine(h) if h.epoch == 2));
    assert_eq!(me.others(), 0);
}

#[test]
fn whoever_lost_it_to_another_learns_that_before_it_writes() {
    let mut me = candidate("me");
    me.learn(None, at(0));
    hold(&mut me, 0, 1, 1);
    let mut pass = me.ticket();
    // Its record is its own as far as it knows, so it tries, and is refused.
    assert_eq!(me.evaluate(&mut pass, at(10_000)), Step::Acquire);
    me.answered(Purpose::Hold, at(10_000), &Answer::Conflict, at(10_001));
    assert_eq!(me.evaluate(&mut pass, at(10_001)), Step::Look);
    me.answered(Purpose::Look, at(10_001), &Answer::Record(record("other", 2, 5)), at(10_002));
    assert_eq!(me.evaluate(&mut pass, at(10_002)), Step::Lost);
    assert_eq!(me.others(), 1);
    assert_eq!(now(&mut me, 10_002), Step::Wait(at(14_002)));
}

#[test]
fn it_is_renewed_each_second_while_something_is_written_and_no_tenure_ends_by_that() {
    let mut me = candidate("me");
    me.learn(None, at(0));
    hold(&mut me, 0, 1, 1);
    let mut pass = me.ticket();
    assert!(matches!(me.evaluate(&mut pass, at(1)), Step::Fine(_)));
    assert_eq!(me.keep(1, at(500)), Step::Wait(at(1000)));
    assert_eq!(me.keep(1, at(1000)), Step::Renew);
    assert!(matches!(me.evaluate(&mut pass, at(1500)), Step::Fine(_)), "a second is left");
    assert_eq!(me.evaluate(&mut pass, at(1501)), Step::Renew);
    let lease = hold(&mut me, 1501, 1502, 2);
    assert_eq!(lease["spec"]["leaseTransitions"], 1);
    assert!(matches!(me.evaluate(&mut pass, at(2600)), Step::Fine(h) if h.epoch == 1));
    assert_eq!(me.keep(1, at(2600)), Step::Renew);
    me.answered(Purpose::Hold, at(2600), &Answer::Unknown, at(2700));
    assert_eq!(me.keep(1, at(2700)), Step::Look, "nobody knows what became of it");
    assert_eq!(me.keep(2, at(2700)), Step::Lost, "another tenure");
}

#[test]
fn given_back_it_is_not_held_from_before_the_request() {
    let mut me = candidate("me");
    assert_eq!(me.release(Timestamp::UNIX_EPOCH), None);
    me.learn(None, at(0));
    hold(&mut me, 0, 1, 1);
    let request = me.release(Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(me.hold(at(2)), None);
    let lease = request.body.unwrap();
    assert_eq!(
        (&lease["spec"]["holderIdentity"], &lease["spec"]["leaseTransitions"]),
        (&json!(""), &json!(1))
    );
    let mut other = candidate("other");
    other.learn(Some(&record("me", 1, 1)), at(0));
    assert!(!other.is_free());
    assert_eq!(other.release(Timestamp::UNIX_EPOCH), None, "not its own");
}

#[test]
fn a_lease_that_is_deleted_counts_as_long_as_it_would_have() {
    let mut me = candidate("me");
    me.learn(None, at(0));
    hold(&mut me, 0, 1, 1);
    me.learn(None, at(10));
    assert_eq!(me.hold(at(10)), None, "the holder stops");
    let mut other = candidate("other");
    other.learn(Some(&record("me", 7, 1)), at(0));
    other.learn(None, at(1000));
    other.learn(None, at(3000));
    assert!(!other.is_free());
    assert_eq!(now(&mut other, 1000), Step::Wait(at(5000)));
    assert_eq!(now(&mut other, 5000), Step::Acquire);
    let lease = hold(&mut other, 5000, 5001, 9);
    assert_eq!(lease["spec"]["leaseTransitions"], 8, "epochs go on");
}

#[test]
fn nonsense_in_the_lease_is_no_harm() {
    for spec in
        [json!(null), json!([]), json!("x"), json!({"leaseDurationSeconds": -5, "leaseTransitions": "x"})]
    {
        let mut me = candidate("me");
        me.learn(Some(&json!({"metadata": {"resourceVersion": "1"}, "spec": spec})), at(0));
        assert_eq!(now(&mut me, 0), Step::Acquire, "{spec}");
        let lease = hold(&mut me, 0, 1, 2);
        assert_eq!(lease["spec"]["leaseTransitions"], 1);
    }
    let mut me = candidate("me");
    let long = json!({"metadata": {}, "spec": {"holderIdentity": "x", "leaseDurationSeconds": u64::MAX, "leaseTransitions": u64::MAX}});
    me.learn(Some(&long), at(0));
    assert_eq!(now(&mut me, 0), Step::Wait(at(3_601_000)));
    assert!(me.request(Step::Acquire, Timestamp::UNIX_EPOCH).is_some());
}
