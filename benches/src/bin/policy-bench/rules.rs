//! Many identities and rules: all of them applied, and one rule changed.

use crate::Arguments;
use crate::api::{Took, apply_only};
use crate::daemon::{Daemon, Wanted, spread, times};
use anyhow::Result;
use std::fmt::Write;
use std::time::Duration;
use tidegate_benches::report::Report;

/// So many seconds at most are wanted for all of them.
const MOST: f64 = 1.0;
/// So long at most a changed rule, of a hundred all but one.
const MOST_OF_ONE_MS: f64 = 5.0;
/// Between changes.
const PAUSE: Duration = Duration::from_millis(50);
/// Before the first of them.
const FIRST_PAUSE: Duration = Duration::from_secs(3);

/// Measures a whole commit, and one of one rule.
pub fn measure(report: &mut Report, arguments: &Arguments) -> Result<()> {
    let Arguments { identities, rules, rounds, changes, .. } = *arguments;
    let daemon = Daemon::start(&arguments.tidegate)?;
    let empty = daemon.file("empty.yaml", &policy(0, 443))?;
    let workloads = daemon.file("workloads.yaml", &workloads(identities, rules))?;
    let fixed = daemon.file("rules.yaml", &policy(rules - 1, 443))?;
    let one = |port| one(rules, port);
    let changed = daemon.file("one.yaml", &one(1000))?;
    let all = ["policy", "apply", &workloads, &fixed, &changed];
    let name = format!("{identities} identities and {rules} rules");
    let mut took = Vec::new();
    for _ in 0..rounds {
        daemon.run(&["policy", "apply", &empty])?;
        took.push(daemon.run(&all)?);
    }
    times(report, &format!("{name}, from the command until all is judged by them"), &took, Some(MOST));
    daemon.state_memory(report, &name)?;
    one_rule(report, &daemon, changes, (&changed, &one))?;
    let mut took = Vec::new();
    for n in 0..changes.min(20) {
        daemon.file("one.yaml", &one(10_001 + n))?;
        took.push(daemon.run(&["policy", "apply", "--only", &changed])?);
    }
    times(report, "the same by the command `policy apply --only`, with its start and its end", &took, None);
    let mut took = Vec::new();
    for n in 0..rounds {
        daemon.file("one.yaml", &one(20_001 + n))?;
        took.push(daemon.run(&all)?);
    }
    times(report, "the same where the command sends all files", &took, None);
    daemon.state_memory(report, &format!("{name}, after {changes} changes"))
}

/// One rule is given another port, again and again, over the API.
fn one_rule(
    report: &mut Report,
    daemon: &Daemon,
    changes: u32,
    (file, text): (&str, &impl Fn(u32) -> String),
) -> Result<()> {
    let maps = daemon.maps()?;
    let mut took = Vec::new();
    for n in 0..changes {
        // Behind a commit the daemon waits for packets that it may still be judging, and works out what the next one needs.
        std::thread::sleep(if n == 0 { FIRST_PAUSE } else { PAUSE });
        took.push(apply_only(&daemon.socket(), &maps, file, &text(1001 + n))?);
    }
    let ms = |of: fn(&Took) -> Duration| took.iter().map(|took| of(took).as_secs_f64() * 1e3).collect();
    let name = "one rule of them changed, from the request at the API until it is";
    let wanted = Wanted { p99: Some(MOST_OF_ONE_MS), ..Wanted::default() };
    spread(report, (&format!("{name} judged by"), "ms"), ms(|took| took.judged), wanted);
    let answered = format!("{name} answered, and on the disk");
    spread(report, (&answered, "ms"), ms(|took| took.answered), Wanted::default());
    Ok(())
}

/// Identities of as many services as there are pairs of rules, ten or so in each.
fn workloads(identities: u32, rules: u32) -> String {
    let mut text = String::new();
    let services = services(rules);
    for n in 0..identities {
        let [_, b, c, d] = n.to_be_bytes();
        let service = n % services;
        let _ = write!(
            text,
            "---\napiVersion: tidegate.dev/v1\nkind: Workload\nmetadata: {{name: w{n}}}\n\
             spec: {{spiffeId: spiffe://acme.example/ns/n{service}/sa/w{n}, addresses: [10.{b}.{c}.{d}], labels: {{app: s{service}}}}}\n"
        );
    }
    text
}

fn services(rules: u32) -> u32 {
    (rules / 10).max(1)
}

fn policy(rules: u32, port: u32) -> String {
    let mut text =
        "apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {name: many}\nspec:\n  rules:\n".to_owned();
    if rules == 0 {
        return text.replace("  rules:\n", "  rules: []\n");
    }
    let services = services(rules);
    for n in 0..rules {
        let (from, to) = (n % services, (n / services * 7 + n + 1) % services);
        let _ = writeln!(
            text,
            "    - {{name: r{n}, action: allow, from: [{{labels: {{app: s{from}}}}}], to: [{{labels: {{app: s{to}}}}}], ports: [tcp/{}]}}",
            port + n % 50
        );
    }
    text
}

/// The policy whose rule is changed.
fn one(rules: u32, port: u32) -> String {
    let to = services(rules) / 2;
    format!(
        "apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{name: one}}\nspec:\n  rules:\n    \
         - {{name: r, action: allow, from: [{{labels: {{app: s0}}}}], to: [{{labels: {{app: s{to}}}}}], ports: [tcp/{port}]}}\n"
    )
}
