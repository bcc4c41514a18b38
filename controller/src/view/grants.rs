//! `tidegate grant list`: who has access for a while now, and who had it then.

use super::table;
use super::{Format, print_json, say};
use crate::audit::grants::{Given, History};
use crate::exit_code::Result;
use crate::instance::Instance;
use crate::policy::grant::Grant;
use crate::policy::ports::PortMatch;
use crate::policy::selector::selectors_text;
use crate::policy::time::duration_text;
use crate::state::{State, Store, manual_grant_id};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Which grants are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Those that hold.
    Now,
    /// Those that held then.
    At(Timestamp),
    /// Every one that ever was.
    All,
}

impl Asked {
    /// By a time, or all.
    pub fn of(at: Option<Timestamp>, all: bool) -> Self {
        match at {
            Some(at) => Self::At(at),
            None if all => Self::All,
            None => Self::Now,
        }
    }
}

/// Prints grants: what holds now by the state, what held then by the record.
pub fn print(instance: &Instance, state: &State, asked: Asked, format: Format) -> Result<()> {
    let now = Timestamp::now();
    let history = Store::read(&instance.state_file())?.map(|store| History::read(&store)).transpose()?;
    let history = history.unwrap_or_default();
    let rows: Vec<Row> = match asked {
        Asked::Now => {
            let mut by_name: HashMap<&str, Vec<&Given>> = HashMap::new();
            history.iter().for_each(|given| by_name.entry(&given.grant.name).or_default().push(given));
            let last = |grant: &Grant| {
                by_name.get(&*grant.name)?.iter().rev().copied().find(|given| given.grant == *grant)
            };
            let held = state.grants_at(now);
            held.iter().map(|grant| Row { grant: (*grant).clone(), given: last(grant).cloned() }).collect()
        }
        Asked::At(at) => history.into_iter().filter(|given| given.holds_at(at)).map(Row::of).collect(),
        Asked::All => history.into_iter().map(Row::of).collect(),
    };
    if format == Format::Json {
        return print_json(&rows.iter().map(|row| row.json(now)).collect::<Vec<_>>());
    }
    if rows.is_empty() {
        return say(match asked {
            Asked::Now => "nobody has a grant",
            Asked::At(_) => "nobody had a grant then",
            Asked::All => "nobody ever had a grant",
        });
    }
    let mut out = table::table(&["ID", "FROM", "TO", "PORTS", "SINCE", "UNTIL", "", "BY", "REASON"]);
    rows.iter().for_each(|row| {
        out.add_row(row.cells(now));
    });
    say(&table::text(&out))
}

/// A grant, and what the record tells of it.
struct Row {
    grant: Grant,
    given: Option<Given>,
}

impl Row {
    fn of(given: Given) -> Self {
        Self { grant: given.grant.clone(), given: Some(given) }
    }

    fn end(&self) -> Timestamp {
        self.given.as_ref().map_or(self.grant.not_after, Given::end)
    }

    /// `in 5m`, `over`, `revoked by root`.
    fn stands(&self, now: Timestamp) -> String {
        match self.given.as_ref().and_then(|given| given.revoked.as_ref()) {
            Some(revoked) => format!("ended by {} ({})", revoked.by, revoked.how),
            None => match u64::try_from(self.end().as_second() - now.as_second()) {
                Ok(seconds @ 1..) => format!("in {}", duration_text(seconds)),
                _ => "over".into(),
            },
        }
    }

    fn cells(&self, now: Timestamp) -> [String; 9] {
        let Self { grant, given } = self;
        [
            id(grant).to_owned(),
            selectors_text(&grant.from),
            selectors_text(&grant.to),
            grant.ports.iter().map(PortMatch::to_string).collect::<Vec<_>>().join(" "),
            given.as_ref().map_or_else(|| "-".into(), |given| format!("{:.0}", given.since)),
            format!("{:.0}", self.end()),
            self.stands(now),
            table::or_dash(given.as_ref().map(|given| given.by.as_str())),
            grant.reason.clone(),
        ]
    }

    fn json(&self, now: Timestamp) -> Value {
        let Self { grant, given } = self;
        json!({
            "id": id(grant), "rule": format!("grant/{}", grant.name), "from": grant.from, "to": grant.to,
            "ports": grant.ports, "not_after": grant.not_after, "reason": grant.reason, "place": grant.place,
            "since": given.as_ref().map(|given| given.since), "by": given.as_ref().map(|given| &given.by),
            "revoked": given.as_ref().and_then(|given| given.revoked.as_ref()), "in_force": self.end() > now,
        })
    }
}

/// What `grant revoke` takes; of a grant in a file, its name.
fn id(grant: &Grant) -> &str {
    manual_grant_id(&grant.name).unwrap_or(&grant.name)
}
