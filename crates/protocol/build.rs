//! Generates the wire types from `proto/`, without protoc.
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let root = "../../proto";
    println!("cargo:rerun-if-changed={root}");
    let files = protox::compile(["control.proto", "shuffle.proto"], [root])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .btree_map(".millstream.control")
        .bytes(".millstream.shuffle")
        .compile_fds(files)?;
    Ok(())
}
