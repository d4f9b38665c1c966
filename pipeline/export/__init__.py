"""A cache in the layouts of other readers: one file a format."""

FORMATS = {
    "vllm-ec": "vLLM's encoder cache: a safetensors file a clip, of unmerged or spread tokens",
    "sglang": "SGLang: a safetensors file a clip, of merged tokens with their positions",
    "moment-detr": "Moment-DETR, Lighthouse: npz of one vector every 2 s, pieces of 150 s",
    "actionformer": "ActionFormer, TriDet, OpenTAD: npy of one vector a second, and dataset.json",
    "clip-retrieval": "clip-retrieval: npy partitions of one vector a clip, and metadata",
    "lance": "LanceDB: a table of multivectors (extra: lance)",
    "qdrant": "Qdrant: a collection of multivectors, local or of a server (extra: qdrant)",
    "npy": "plain numpy: tokens, sizes, centres and times a clip",
}
