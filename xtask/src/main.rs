//! `cargo xtask`: set-up, build, test, demo and bench of Tidegate.
pub mod bpf_toolchain;

fn main() {
    match bpf_toolchain::find() {
        Ok(found) => println!("{}", found.chosen),
        Err(why) => eprintln!("{why}"),
    }
}
