"""The report page of a backtest."""
