"""A model's description as the protocol's messages, and back."""

from __future__ import annotations

from collections.abc import Iterable

from encephalon.api.inference.v1 import inference_pb2 as pb
from encephalon.api.inference.v1 import model_config_pb2 as config_pb
from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.inference.models import BatchStatistics, Duration, ModelDescription, ModelStatistics, Step

__all__ = ["config", "describe", "metadata", "read_statistics", "statistics"]

# Triton says STRING where the protocol's tensors say BYTES.
STRING = "STRING"
DURATIONS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


def metadata(model: ModelDescription) -> pb.ModelMetadataResponse:
    def tensors(specs: Iterable[TensorSpec]) -> list[pb.ModelMetadataResponse.TensorMetadata]:
        return [
            pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)
            for spec in specs
        ]

    return pb.ModelMetadataResponse(
        name=model.name,
        versions=model.versions,
        platform=model.platform,
        inputs=tensors(model.contract.inputs),
        outputs=tensors(model.contract.outputs),
    )


def config(model: ModelDescription) -> config_pb.ModelConfig:
    batched = 1 if model.max_batch > 0 else 0
    message = config_pb.ModelConfig(
        name=model.name,
        platform=model.platform,
        max_batch_size=model.max_batch,
        input=[
            config_pb.ModelInput(
                name=spec.name, data_type=data_type(spec.datatype), dims=spec.shape[batched:], optional=spec.optional
            )
            for spec in model.contract.inputs
        ],
        output=[
            config_pb.ModelOutput(name=spec.name, data_type=data_type(spec.datatype), dims=spec.shape[batched:])
            for spec in model.contract.outputs
        ],
        instance_group=[config_pb.ModelInstanceGroup(name=model.name, count=model.replicas)],
        parameters={
            name: config_pb.ModelParameter(string_value=value) for name, value in sorted(model.parameters.items())
        },
    )
    if model.steps:
        message.ensemble_scheduling.step.extend(ensemble_step(step) for step in model.steps)
    elif batched:
        message.dynamic_batching.max_queue_delay_microseconds = round(model.max_delay_s * 1e6)
    return message


def describe(found: pb.ModelMetadataResponse, more: config_pb.ModelConfig | None) -> ModelDescription:
    """From metadata, and from the config of servers that have one: it alone knows what is optional."""
    more = more or config_pb.ModelConfig()
    optional = {tensor.name for tensor in more.input if tensor.optional}
    return ModelDescription(
        name=found.name,
        versions=tuple(found.versions),
        platform=found.platform,
        contract=Contract(
            tuple(
                TensorSpec(each.name, each.datatype, tuple(each.shape), each.name in optional) for each in found.inputs
            ),
            tuple(TensorSpec(each.name, each.datatype, tuple(each.shape)) for each in found.outputs),
        ),
        max_batch=more.max_batch_size,
        max_delay_s=more.dynamic_batching.max_queue_delay_microseconds / 1e6,
        replicas=sum(group.count for group in more.instance_group) or 1,
        parameters={name: parameter.string_value for name, parameter in more.parameters.items()},
        steps=tuple(
            Step(step.model_name, dict(step.input_map), dict(step.output_map)) for step in more.ensemble_scheduling.step
        ),
    )


def statistics(found: Iterable[ModelStatistics]) -> pb.ModelStatisticsResponse:
    return pb.ModelStatisticsResponse(
        model_stats=[
            pb.ModelStatistics(
                name=each.name,
                version=each.version,
                last_inference=each.last_inference_ms,
                inference_count=each.inference_count,
                execution_count=each.execution_count,
                inference_stats=pb.InferStatistics(**{name: duration(getattr(each, name)) for name in DURATIONS}),
                batch_stats=[
                    pb.InferBatchStatistics(batch_size=size, compute_infer=duration(batch.compute_infer))
                    for size, batch in sorted(each.batches.items())
                ],
            )
            for each in found
        ]
    )


def read_statistics(found: pb.ModelStatisticsResponse) -> list[ModelStatistics]:
    return [
        ModelStatistics(
            each.name,
            each.version,
            each.last_inference,
            each.inference_count,
            each.execution_count,
            **{name: read_duration(getattr(each.inference_stats, name)) for name in DURATIONS},
            batches={
                batch.batch_size: BatchStatistics(batch.batch_size, read_duration(batch.compute_infer))
                for batch in each.batch_stats
            },
        )
        for each in found.model_stats
    ]


def ensemble_step(step: Step) -> config_pb.ModelEnsembling.Step:
    return config_pb.ModelEnsembling.Step(
        model_name=step.model_name, model_version=-1, input_map=step.input_map, output_map=step.output_map
    )


def data_type(datatype: str) -> config_pb.DataType.ValueType:
    return config_pb.DataType.Value(f"TYPE_{STRING if datatype == 'BYTES' else datatype}")


def duration(value: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=value.count, ns=value.ns)


def read_duration(value: pb.StatisticDuration) -> Duration:
    return Duration(value.count, value.ns)
