"""Trainers on two ranks: `python trainer_scenarios.py FOLDER` writes what each rank saw.

Each rank compares the rows with a sequential evaluation of all samples.
"""

from __future__ import annotations

import os
import sys

import accelerate
import torch
import torch.distributed as dist
from ignite.engine import create_supervised_evaluator, create_supervised_trainer
from test_lightning import L, Module
from test_transformers import Small, rows_of
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, Subset
from toy_task import Task, make_network
from transformers import Trainer, TrainingArguments

from confshift import Run, inspect
from confshift.integrations import ignite, lightning
from confshift.integrations.transformers import ConfshiftCallback
from forked_ranks import main, refused, scenario, seen

TASK = Task()


def as_under_torchrun(rank):
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "test"}
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ |= {name: str(value) for name, value in {**where, **ranks}.items()}


def transform(folder, rank, norm=nn.LayerNorm, **options):
    as_under_torchrun(rank)
    model = Small(make_network(norm))
    arguments = TrainingArguments(
        str(folder / "out"),
        num_train_epochs=1,
        per_device_eval_batch_size=16,
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        ddp_backend="gloo",
        **options,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=rows_of(TASK.train),
        eval_dataset=rows_of(TASK.val),
        callbacks=[ConfshiftCallback(folder / "run", timeout=20)],
    )
    trainer.train()
    return model.network, Run(folder / "run")[1]


def compared(network, checkpoint):
    TASK.assert_true(checkpoint, network)
    return seen(checkpoint)


@scenario(2)
def transformers_shards(folder, rank):
    return compared(*transform(folder, rank))


@scenario(2)
def transformers_dispatched_by_rank_0(folder, rank):
    return compared(*transform(folder, rank, accelerator_config={"dispatch_batches": True}))


@scenario(2)
def transformers_with_hidden_labels(folder, rank):
    return compared(*transform(folder, rank, label_smoothing_factor=0.1))


@scenario(2)
def transformers_with_batch_norm(folder, rank):
    return seen(transform(folder, rank, nn.BatchNorm1d)[1])


@scenario(2)
def lightning_ddp(folder, rank):
    as_under_torchrun(rank)
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    callback = lightning.ConfshiftCallback(folder / "run", timeout=20)
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", callbacks=[callback], **quiet
    )
    module = Module(make_network(nn.LayerNorm))
    trainer.fit(module, *TASK.loaders())
    dist.barrier()
    run = Run(folder / "run")
    assert run.epochs == (1, 2)
    return compared(module.network, run[2])


@scenario(2)
def accelerate_prepared(folder, rank):
    as_under_torchrun(rank)
    results = []
    forms = [{}, {"even_batches": False}, {"split_batches": True}, {"dispatch_batches": True}]
    for number, form in enumerate([*forms, {"dispatch_batches": True, "split_batches": True}]):
        configuration = accelerate.DataLoaderConfiguration(**form)
        accelerator = accelerate.Accelerator(cpu=True, dataloader_config=configuration)
        network = make_network(nn.LayerNorm)
        model, loader = accelerator.prepare(network, DataLoader(TASK.val, 16))
        results.append(compared(network, inspect(model, loader, run=folder / f"run{number}")))
        few = accelerator.prepare(DataLoader(Subset(TASK.val, range(5, 38)), 16))
        ids = inspect(model, few, run=folder / f"few{number}").predictions.sample_ids
        assert ids.tolist() == list(range(5, 38))
    # The order in which rank 0 reads is known to rank 0 only.
    shuffled = accelerator.prepare(DataLoader(TASK.val, 16, shuffle=True))
    unknown = refused(inspect, model, shuffled, run=folder / "shuffled")
    alone = accelerator.is_main_process and refused(inspect, model, loader, run=folder / "alone", timeout=0.3)
    dist.barrier()
    return results, unknown, alone, (folder / "alone").exists()


@scenario(2)
def ignite_shards_shuffled(folder, rank):
    network = make_network(nn.LayerNorm)
    loader = DataLoader(TASK.val, 16, sampler=DistributedSampler(TASK.val, shuffle=True))
    evaluator, other = create_supervised_evaluator(network), create_supervised_evaluator(network)
    trainer = create_supervised_trainer(
        network, torch.optim.SGD(network.parameters(), 0.1), nn.CrossEntropyLoss()
    )
    ignite.ConfshiftHandler(folder / "run", trainer=trainer).attach(evaluator)
    evaluator.run(loader)
    ignite.ConfshiftHandler(folder / "run", trainer=trainer).attach(other)
    _, answer, _ = refused(other.run, loader)
    assert "from epoch 0 on, and this training begins with epoch 0" in answer
    return compared(network, Run(folder / "run")[0])


if __name__ == "__main__":
    main(sys.argv[1])
