"""A dashboard as W&B has it: a workspace (a saved view of the project) and a report, by wandb-workspaces.

Teachers and students are a heat map of our own: a Vega-Lite chart over the tables `results` of the runs, since W&B has
none. It is created once for an entity, and drawn again by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from srecycle.errors import UserError
from srecycle.tracker.dashboard import Dashboard, Key, Panel
from srecycle.tracker.labels import RESULTS

CHART = "srecycle-pairs"
_COLUMNS, _ROWS, _TALL_ROWS = 24, 8, 14
"""W&B's grid is 24 columns wide."""

_WIDE = ("parallel", "differences", "rows")

PAIRS: Mapping[str, Any] = {
    "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
    "title": "${string:title}",
    "data": {"name": "wandb"},
    "transform": [
        {"filter": {"field": "${field:figure}", "equal": "${string:figure}"}},
        {
            "aggregate": [{"op": "mean", "field": "${field:value}", "as": "mean"}, {"op": "count", "as": "runs"}],
            "groupby": ["${field:teacher}", "${field:student}"],
        },
    ],
    "encoding": {
        "x": {"field": "${field:student}", "type": "nominal", "title": "student", "axis": {"labelAngle": 0}},
        "y": {"field": "${field:teacher}", "type": "nominal", "title": "teacher"},
        "tooltip": [
            {"field": "${field:teacher}", "type": "nominal", "title": "teacher"},
            {"field": "${field:student}", "type": "nominal", "title": "student"},
            {"field": "mean", "type": "quantitative", "format": ".4f"},
            {"field": "runs", "type": "quantitative"},
        ],
    },
    "layer": [
        {
            "mark": "rect",
            "encoding": {
                "color": {"field": "mean", "type": "quantitative", "scale": {"scheme": "blues"}, "title": "mean"}
            },
        },
        {
            "mark": {"type": "text", "stroke": "white", "strokeWidth": 3, "fontSize": 13},
            "encoding": {"text": {"field": "mean", "type": "quantitative", "format": ".3f"}},
        },
        {
            "mark": {"type": "text", "fontSize": 13},
            "encoding": {"text": {"field": "mean", "type": "quantitative", "format": ".3f"}},
        },
    ],
}
"""The heat map; its fields are columns of `RESULTS`."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where the dashboard is now, and the reason where the heat map could not be created."""

    workspace: str
    report: str
    without_pairs: str = ""


class Libraries:
    """wandb-workspaces, in its parts."""

    def __init__(self) -> None:
        """Import it. Raises UserError where it isn't installed."""
        try:
            import wandb_workspaces.reports.v2 as reports
            from wandb_workspaces import expr, workspaces
        except ImportError as error:
            raise UserError("a dashboard in W&B needs wandb-workspaces: pip install 'srecycle[dashboards]'") from error
        self.reports: Any = reports
        self.workspaces: Any = workspaces
        self.expr: Any = expr


def publish(board: Dashboard, api: Any, *, entity: str | None, project: str) -> Published:
    """Save workspace and report in W&B. `api` is W&B's own; without an entity it is the account's default.

    Raises UserError where W&B refuses.
    """
    libraries = Libraries()
    try:
        owner = entity or str(api.default_entity)
        chart, reason = _chart(api, owner)
        views = Views(libraries, board, entity=owner, project=project, chart=chart)
        workspace, report = views.workspace(), views.report(by_name=True)
        report.save()  # first: it makes the project where there is none
        workspace.save()
        return Published(workspace=workspace.url, report=report.url, without_pairs=reason)
    except Exception as error:
        raise UserError(
            f"W&B refused the dashboard ({' '.join(str(error).split()) or type(error).__name__})"
        ) from error


def _chart(api: Any, entity: str) -> tuple[str | None, str]:
    """Create the heat map, and return its name, or None and why there is none: a server may be too old for it."""
    try:
        made = api.create_custom_chart(
            entity=entity,
            name=CHART,
            display_name="Teachers and students",
            spec_type="vega2",
            access="private",
            spec=dict(PAIRS),
        )
    except Exception as error:  # noqa: BLE001  (the rest of the dashboard stands without it)
        why = " ".join(str(error).split()) or type(error).__name__
        return (f"{entity}/{CHART}", "") if "exist" in why else (None, why)
    return str(made), ""


class Views:
    """Turns a dashboard into objects of wandb-workspaces."""

    def __init__(self, libraries: Libraries, board: Dashboard, *, entity: str, project: str, chart: str | None) -> None:
        """`chart` is the heat map's name in W&B; without one it is left out."""
        self._libraries, self._board, self._chart = libraries, board, chart
        self._entity, self._project = entity, project

    def workspace(self) -> Any:
        """Return the workspace."""
        workspaces = self._libraries.workspaces
        sections = [
            workspaces.Section(name=one.title, panels=self._panels(one.panels), is_open=place < 2)
            for place, one in enumerate(self._board.sections)
        ]
        return workspaces.Workspace(
            entity=self._entity,
            project=self._project,
            name=self._board.title,
            sections=sections,
            runset_settings=workspaces.RunsetSettings(filters=self._filters()),
        )

    def report(self, *, by_name: bool) -> Any:
        """Return the report. `by_name` has its runs looked up at W&B, else they are those of the report's project."""
        reports = self._libraries.reports
        blocks = [reports.P(text=f"Written by srecycle-dashboard; runs are compared by {self._board.metric}.")]
        blocks.append(reports.TableOfContents())
        where = {"entity": self._entity, "project": self._project} if by_name else {}
        for one in self._board.sections:
            runs = reports.Runset(name=self._board.group or "All runs", filters=self._filters(), **where)
            grid = reports.PanelGrid(runsets=[runs], panels=self._panels(one.panels))
            blocks += [reports.H2(text=one.title), reports.P(text=one.text), grid]
        return reports.Report(
            entity=self._entity,
            project=self._project,
            title=self._board.title,
            description="Selective Reflection-Tuning: thresholds, teachers and students, composition, cost.",
            blocks=blocks,
            width="fluid",
        )

    def _filters(self) -> list[Any]:
        return [self._libraries.expr.Metric("Group") == self._board.group] if self._board.group else []

    def _panels(self, panels: tuple[Panel, ...]) -> list[Any]:
        """Return the panels, laid out from left to right and from top to bottom."""
        made, x, y, row = [], 0, 0, 0
        for one in panels:
            if one.kind == "pairs" and self._chart is None:
                continue
            width = _COLUMNS if one.kind in _WIDE else _COLUMNS // 2
            height = _TALL_ROWS if one.kind in ("differences", "rows") else _ROWS
            if x + width > _COLUMNS:
                x, y, row = 0, y + row, 0
            panel = self._made(one)
            panel.layout = self._libraries.reports.Layout(x=x, y=y, w=width, h=height)
            made.append(panel)
            x, row = x + width, max(row, height)
        return made

    def _made(self, one: Panel) -> Any:
        makers: Mapping[str, Callable[[Panel], Any]] = {
            "bars": self._bars,
            "scatter": self._scatter,
            "lines": self._lines,
            "parallel": self._parallel,
            "importance": lambda panel: self._libraries.reports.ParameterImportancePlot(
                with_respect_to=panel.y[0].name
            ),
            "differences": lambda _: self._libraries.reports.RunComparer(diff_only="split"),
            "rows": lambda panel: self._libraries.reports.WeavePanelSummaryTable(table_name=panel.y[0].name),
            "pairs": self._pairs,
        }
        return makers[one.kind](one)

    def _key(self, key: Key) -> Any:
        reports = self._libraries.reports
        return reports.Config(key.name) if key.where == "config" else reports.SummaryMetric(key.name)

    def _bars(self, one: Panel) -> Any:
        averaged = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stderr"}
        return self._libraries.reports.BarPlot(
            title=one.title,
            metrics=[key.name for key in one.y],
            **({"groupby": self._key(one.by), **averaged} if one.by else {}),
        )

    def _scatter(self, one: Panel) -> Any:
        assert one.x is not None
        return self._libraries.reports.ScatterPlot(
            title=one.title, x=self._key(one.x), y=self._key(one.y[0]), running_ymean=True
        )

    def _lines(self, one: Panel) -> Any:
        assert one.x is not None
        return self._libraries.reports.LinePlot(title=one.title, x=one.x.name, y=[key.name for key in one.y])

    def _parallel(self, one: Panel) -> Any:
        reports = self._libraries.reports
        columns = [
            reports.ParallelCoordinatesPlotColumn(metric=self._key(key), display_name=key.name.rpartition("/")[2])
            for key in one.y
        ]
        return reports.ParallelCoordinatesPlot(title=one.title, columns=columns)

    def _pairs(self, one: Panel) -> Any:
        return self._libraries.reports.CustomChart(
            query={"summaryTable": {"tableKey": "results"}},
            chart_name=self._chart,
            chart_fields={name: name for name in RESULTS},
            chart_strings={"title": one.title, "figure": self._board.metric},
        )
