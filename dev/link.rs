//! Build script of the programs. Functions with the same code, of which generic code makes many, are kept once: images have to stay small.
fn main() {
    println!("cargo:rerun-if-changed=../../dev/link.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
}
