"""A cache in the layouts of other readers: one file a format."""

FORMATS = {
    "vllm-ec": "vLLM's encoder cache: one safetensors file per clip, of unmerged or spread tokens",
    "sglang": "SGLang: one safetensors file per clip, of merged tokens with their positions",
    "moment-detr": "Moment-DETR, Lighthouse: npz of one vector every 2 s, pieces of 150 s",
    "actionformer": "ActionFormer, TriDet, OpenTAD: npy of one vector per second, and dataset.json",
    "clip-retrieval": "clip-retrieval: npy partitions of one vector per clip, and metadata",
    "lance": "LanceDB: a table of multivectors (extra: lance)",
    "qdrant": "Qdrant: a collection of multivectors, local or of a server (extra: qdrant)",
    "npy": "plain numpy: tokens, sizes, centres and times of each clip",
}
