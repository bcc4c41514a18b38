//! Links, addresses, routes and sysctls of the namespace that the calling thread is in, by netlink.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command as Process;

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::route::RouteType;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection};

use crate::topology::plan::{Interface, Kind, Node, Route};

/// Name of the bridge in a namespace of kind bridge.
const BRIDGE: &str = "br0";

/// Runs netlink requests to their end.
fn netlink<T>(work: impl AsyncFnOnce(Handle) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // The socket belongs to the namespace of the thread that opens it.
        let (connection, handle, _) = new_connection().context("cannot open a netlink socket")?;
        let task = tokio::spawn(connection);
        let result = work(handle).await;
        task.abort();
        result
    })
}

fn index(name: &str) -> Result<u32> {
    if_nametoindex(name).with_context(|| format!("no interface {name}"))
}

/// What must be set before interfaces come, since they copy `default` when they do.
pub fn prepare(kind: Kind) -> Result<()> {
    let v6 = Path::new("/proc/sys/net/ipv6").is_dir();
    // Addresses are usable at once: nothing else can own them in a network made for this run.
    for (key, value) in [("accept_dad", "0"), ("accept_ra", "0"), ("router_solicitations", "0")] {
        for scope in ["all", "default"] {
            if v6 {
                sysctl(&format!("net/ipv6/conf/{scope}/{key}"), value)?;
            }
        }
    }
    for scope in ["all", "default"] {
        sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "0")?;
    }
    // As on any host: unprivileged echo sockets are not needed, but low ports may be served without more.
    if matches!(kind, Kind::Gateway | Kind::Router) {
        sysctl("net/ipv4/ip_forward", "1")?;
        if v6 {
            sysctl("net/ipv6/conf/all/forwarding", "1")?;
        }
    }
    netlink(async |handle| up(&handle, "lo").await)?;
    if kind == Kind::Bridge {
        netlink(async |handle| {
            let bridge = LinkBridge::new(BRIDGE).forward_delay(0).mcast_snooping(false).build();
            handle.link().add(bridge).execute().await.context("cannot make the bridge")?;
            up(&handle, BRIDGE).await
        })?;
    }
    Ok(())
}

/// /proc/sys/net shows the namespace of the thread that opens it.
fn sysctl(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{key}");
    fs::write(&path, value).with_context(|| format!("cannot write {value} to {path}"))
}

async fn up(handle: &Handle, name: &str) -> Result<()> {
    let message = LinkUnspec::new_with_index(index(name)?).up().build();
    handle.link().set(message).execute().await.with_context(|| format!("cannot bring {name} up"))
}

/// Makes a veth pair: one end stays, the other goes into another namespace under its own name there.
pub fn veth(here: &str, there: &str, namespace: &Path) -> Result<()> {
    let file = fs::File::open(namespace).with_context(|| format!("cannot open {}", namespace.display()))?;
    // Unique while it is here: the other end may have the same name as one of ours.
    let passing = "tgsim-moving";
    netlink(async |handle| {
        let pair = LinkVeth::new(here, passing).build();
        handle
            .link()
            .add(pair)
            .execute()
            .await
            .with_context(|| format!("cannot make the veth pair {here}"))?;
        let moving =
            LinkUnspec::new_with_index(index(passing)?).name(there).setns_by_fd(file.as_raw_fd()).build();
        handle
            .link()
            .set(moving)
            .execute()
            .await
            .with_context(|| format!("cannot move {there} into {}", namespace.display()))
    })
}

/// Brings a node's interfaces up, with addresses and routes.
pub fn configure(node: &Node) -> Result<()> {
    node.masquerade.as_deref().map_or(Ok(()), masquerade)?;
    netlink(async |handle| {
        for interface in &node.interfaces {
            if node.kind == Kind::Bridge {
                enslave(&handle, &interface.name).await?;
            }
            up(&handle, &interface.name).await?;
            addresses(&handle, interface).await?;
        }
        for route in &node.routes {
            add_route(&handle, route).await?;
        }
        Ok(())
    })
}

/// What leaves by an interface takes its address. A program that is started here is in this thread's namespace.
fn masquerade(out: &str) -> Result<()> {
    let rule = format!("oifname \"{out}\" masquerade");
    for words in [
        &["add", "table", "ip", "nat"][..],
        &["add", "chain", "ip", "nat", "out", "{ type nat hook postrouting priority srcnat; }"],
        &["add", "rule", "ip", "nat", "out", &rule],
    ] {
        let output = Process::new("nft").args(words).output().context("cannot run nft, of nftables")?;
        ensure!(
            output.status.success(),
            "nft {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

async fn enslave(handle: &Handle, name: &str) -> Result<()> {
    let message = LinkUnspec::new_with_index(index(name)?).controller(index(BRIDGE)?).build();
    handle.link().set(message).execute().await.with_context(|| format!("cannot put {name} into the bridge"))
}

async fn addresses(handle: &Handle, interface: &Interface) -> Result<()> {
    let index = index(&interface.name)?;
    for prefix in &interface.addresses {
        handle.address().add(index, prefix.address, prefix.length).execute().await.with_context(|| {
            format!("cannot give {}/{} to {}", prefix.address, prefix.length, interface.name)
        })?;
    }
    Ok(())
}

async fn add_route(handle: &Handle, route: &Route) -> Result<()> {
    let (to, length) = (route.to.address, route.to.length);
    let message = match (to, route.via) {
        (IpAddr::V4(to), via) => {
            let builder = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, length);
            match via {
                Some(IpAddr::V4(via)) => builder.gateway(via).build(),
                _ => builder.kind(RouteType::BlackHole).build(),
            }
        }
        (IpAddr::V6(to), via) => {
            let builder = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, length);
            match via {
                Some(IpAddr::V6(via)) => builder.gateway(via).build(),
                _ => builder.kind(RouteType::BlackHole).build(),
            }
        }
    };
    handle.route().add(message).execute().await.with_context(|| match route.via {
        Some(via) => format!("cannot add the route to {to}/{length} via {via}"),
        None => format!("cannot add the blackhole route to {to}/{length}"),
    })
}

/// Removes an interface; its other end goes with it.
pub fn remove_link(name: &str) -> Result<()> {
    let Ok(index) = index(name) else { return Ok(()) };
    netlink(async |handle| {
        handle.link().del(index).execute().await.with_context(|| format!("cannot remove {name}"))
    })
}

/// Whether an interface is there.
pub fn has_link(name: &str) -> bool {
    index(name).is_ok()
}
