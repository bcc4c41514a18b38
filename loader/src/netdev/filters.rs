//! BPF programs on an interface's way through TC: filters of clsact and TCX links, whoever put them there.

use super::netlink::{Attributes, ask_all, u32_at};
use crate::error::{Error, Result, os_error};
use aya::programs::{SchedClassifier, TcAttachType};

const RTM_GETTFILTER: u16 = 46;
/// `TC_H_CLSACT` with its two hooks, of include/uapi/linux/pkt_sched.h.
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
const TCMSG: usize = 20;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;
const EINVAL: i32 = 22;

/// A BPF program of TC on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcProgram {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// It sees what leaves, not what comes in.
    pub egress: bool,
    /// A TCX link, not a filter of clsact.
    pub tcx: bool,
}

/// Programs on an interface: those of TCX first, as the kernel runs them.
pub fn tc_programs(interface: &str, index: u32) -> Result<Vec<TcProgram>> {
    let mut programs = Vec::new();
    for egress in [false, true] {
        programs.extend(tcx(interface, egress)?);
        programs.extend(clsact(index, egress)?);
    }
    Ok(programs)
}

fn tcx(interface: &str, egress: bool) -> Result<Vec<TcProgram>> {
    let hook = if egress { TcAttachType::Egress } else { TcAttachType::Ingress };
    let (_, programs) = match SchedClassifier::query_tcx(interface, hook) {
        // Linux before 6.6 knows no TCX.
        Err(e) if os_error(&e) == Some(EINVAL) => return Ok(Vec::new()),
        Err(e) => {
            return Err(match os_error(&e) {
                Some(1 | 13) => Error::NotPermitted { what: format!("see the TCX links of {interface}") },
                code => Error::Netlink(std::io::Error::from_raw_os_error(code.unwrap_or(0))),
            });
        }
        Ok(found) => found,
    };
    let one = |info: &aya::programs::ProgramInfo| TcProgram {
        id: info.id(),
        name: info.name_as_str().unwrap_or_default().to_owned(),
        egress,
        tcx: true,
    };
    Ok(programs.iter().map(one).collect())
}

fn clsact(index: u32, egress: bool) -> Result<Vec<TcProgram>> {
    // struct tcmsg: the index and the hook.
    let mut body = [0u8; TCMSG];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[12..16].copy_from_slice(&(if egress { EGRESS } else { INGRESS }).to_ne_bytes());
    let filters = match ask_all(RTM_GETTFILTER, &body) {
        // No such qdisc.
        Err(e) if e.raw_os_error() == Some(EINVAL) => return Ok(Vec::new()),
        filters => filters.map_err(Error::Netlink)?,
    };
    let of = |filter: &Vec<u8>| {
        let attributes = filter.get(TCMSG..)?;
        let (_, options) = Attributes(attributes).find(|(kind, _)| *kind == TCA_OPTIONS)?;
        let value = |wanted| Attributes(options).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let name = value(TCA_BPF_NAME).unwrap_or_default();
        let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
        Some(TcProgram { id: u32_at(value(TCA_BPF_ID)?, 0)?, name, egress, tcx: false })
    };
    Ok(filters.iter().filter_map(of).collect())
}
