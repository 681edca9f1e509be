//! Compiles `proto/` with protoc.

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=proto");
    tonic_prost_build::configure()
        .build_transport(false)
        // Both are types of ours, which bound what they decode: see raftstore/transport/wire.rs.
        .extern_path(".mainstay.raft.v1.Batch", "crate::raftstore::transport::wire::Batch")
        .extern_path(".mainstay.raft.v1.Envelope", "crate::raftstore::message::Envelope")
        // Shares the bytes of the frame.
        .bytes(".mainstay.raft.v1.SnapshotChunk")
        .compile_protos(&["proto/raft.proto"], &["proto"])?;
    tonic_prost_build::configure().compile_protos(&["proto/meta.proto"], &["proto"])?;
    tonic_prost_build::configure()
        .extern_path(".mainstay.meta.v1", "crate::meta::proto")
        .compile_protos(&["proto/cluster.proto"], &["proto"])?;
    tonic_prost_build::configure()
        .extern_path(".mainstay.meta.v1", "crate::meta::proto")
        .compile_protos(&["proto/meta_query.proto"], &["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .extern_path(".mainstay.meta.v1", "crate::meta::proto")
        .extern_path(".mainstay.meta.query.v1", "crate::meta::query::proto")
        // A type of ours, which bounds what it decodes.
        .extern_path(".mainstay.meta.rpc.v1.BatchRequest", "crate::cluster::rpc::batch::BatchRequest")
        .compile_protos(&["proto/meta_rpc.proto"], &["proto"])?;
    // What the example says to its clients; only the example, its tests and its benchmark include it.
    println!("cargo:rerun-if-changed=examples/raft_kv/kv.proto");
    tonic_prost_build::configure().compile_protos(&["examples/raft_kv/kv.proto"], &["examples/raft_kv"])
}
