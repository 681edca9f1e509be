//! Compiles what the clients of the measured servers say.

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=common/etcd.proto");
    println!("cargo:rerun-if-changed=../examples/raft_kv/kv.proto");
    tonic_prost_build::configure().build_server(false).compile_protos(&["common/etcd.proto"], &["common"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .compile_protos(&["../examples/raft_kv/kv.proto"], &["../examples/raft_kv"])
}
