"""What a list needs of a record, so that a list of ten thousand reads a tenth of their bytes."""

from __future__ import annotations

from typing import Final

from encephalon.api.library.v1 import library_pb2 as pb

__all__ = ["DESCRIPTION_CHARACTERS", "summary_of"]

DESCRIPTION_CHARACTERS: Final = 300


def summary_of(record: pb.Record, size: int) -> pb.Summary:
    """`size` is the sum over the objects that the record reaches, each once, those of its indexes with them."""
    summary = pb.Summary(
        id=record.id,
        created_time=record.created_time,
        created_by=record.created_by,
        description=record.description[:DESCRIPTION_CHARACTERS],
        tags=record.tags,
        metrics=record.metrics,
        data_sets=sorted({parent.record.name for parent in record.parents if parent.record.kind == pb.KIND_DATA_SET}),
        size=size,
    )
    match record.WhichOneof("body"):
        case "area":
            summary.area = record.id.name
            summary.modalities.extend(spec.name for spec in record.area.contract.inputs)
        case "network":
            summary.area, summary.code = record.network.area, record.network.code
            summary.modalities.extend(spec.name for spec in record.network.contract.inputs)
        case "data_set":
            summary.modalities.extend(modality.name for modality in record.data_set.modalities)
        case "scene":
            summary.modalities.extend(record.scene.modalities)
        case "brain":
            summary.modalities.extend(spec.name for spec in record.brain.contract.inputs)
    return summary
